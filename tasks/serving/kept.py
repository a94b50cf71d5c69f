"""Models stay loaded between uses: a stage opens its generator once a chunk, and a start takes many seconds."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.schema import ModelRef
from tasks.serving.interface import LoadedGenerator, ServingConfig, TextGenerator


class KeptGenerators:
    """Loaded generators by name, the least recently used first. One in use is never stopped."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # held through a start: two threads do not start one model twice
        self._loaded: OrderedDict[str, LoadedGenerator] = OrderedDict()
        self._users: Counter[str] = Counter()

    @contextmanager
    def use(self, name: str, limit: int, load: Callable[[], LoadedGenerator]) -> Iterator[LoadedGenerator]:
        """The generator of this name, loaded where none is alive; at most `limit` stay while unused."""
        with self._lock:
            if name not in self._loaded or not self._loaded[name].alive():
                self._stop([name] if name in self._loaded else [])
                self._shrink(limit - 1)
                self._loaded[name] = load()
            self._loaded.move_to_end(name)
            generator = self._loaded[name]
            self._users[name] += 1
        try:
            yield generator
        finally:
            with self._lock:
                self._users[name] -= 1
                self._shrink(limit)

    def close(self) -> None:
        """Stop all of them."""
        with self._lock:
            self._stop(list(self._loaded))

    def _shrink(self, limit: int) -> None:
        idle = [name for name in self._loaded if not self._users[name]]
        self._stop(idle[: max(0, len(self._loaded) - limit)])

    def _stop(self, names: list[str]) -> None:
        for name in names:
            self._loaded.pop(name).stop()


_KEPT = KeptGenerators()


@contextmanager
def open_generator(model: ModelRef, folder: Path, config: ServingConfig) -> Iterator[TextGenerator]:
    """A generator for `model`, whose files lie in `folder`; it stays loaded for the next one who opens it.

    With `config.url` the folder is still needed: prompts are rendered here, by the model's own tokenizer. A
    server that died since its last use is started again. Servers end with this process, however that ends.

    Raises: ServingError: the model cannot be served as configured.
    """
    name = f"{model.content_hash} {config.model_dump_json()}"
    with _KEPT.use(name, config.num_servers_kept, lambda: _load(model, folder, config)) as generator:
        yield generator


def close_all() -> None:
    """Stop every server and forget every model that was kept."""
    _KEPT.close()


def _load(model: ModelRef, folder: Path, config: ServingConfig) -> LoadedGenerator:
    if config.engine == "transformers":
        from tasks.serving.transformers_engine import TransformersGenerator

        return TransformersGenerator.load(folder, config)
    from tasks.serving.attach import attach
    from tasks.serving.vllm_engine import start

    return start(folder, config) if config.url is None else attach(model, folder, config)
