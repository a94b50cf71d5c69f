"""Models stay loaded between uses: a stage opens its generator once a chunk, and a start takes many seconds."""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tasks.schema import ModelRef
from tasks.serving.interface import LoadedGenerator, OtherModelError, ServingConfig, TextGenerator

log = logging.getLogger(__name__)


Adopt = Callable[[LoadedGenerator], LoadedGenerator | None]
"""Makes the wanted generator of one that would be stopped; None where that cannot be, and it is to be stopped."""


class KeptGenerators:
    """Loaded generators by name, the least recently used first. One in use is never stopped."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # held through a start: two threads do not start one model twice
        self._loaded: OrderedDict[str, LoadedGenerator] = OrderedDict()
        self._users: Counter[str] = Counter()

    @contextmanager
    def use(
        self, name: str, limit: int, load: Callable[[], LoadedGenerator], adopt: Adopt
    ) -> Iterator[LoadedGenerator]:
        """The generator of this name, loaded where none is alive; at most `limit` stay while unused.

        One that has to go is first shown to `adopt`: what it makes of it is as good as a new one.
        """
        with self._lock:
            if name not in self._loaded or not self._loaded[name].alive():
                self._stop([name] if name in self._loaded else [])
                self._loaded[name] = self._make_room(limit - 1, adopt) or load()
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

    def _make_room(self, limit: int, adopt: Adopt) -> LoadedGenerator | None:
        """Stop what is too many, but for the first that `adopt` makes something of."""
        for name in self._too_many(limit):
            if adopted := self._adopted(name, adopt):
                self._shrink(limit)
                return adopted
            self._stop([name])
        return None

    def _adopted(self, name: str, adopt: Adopt) -> LoadedGenerator | None:
        """What `adopt` makes of this one, which then goes by this name no more."""
        if not self._loaded[name].alive():
            return None
        try:
            adopted = adopt(self._loaded[name])
        except BaseException:  # half of another model may be in it
            self._stop([name])
            raise
        if adopted:
            del self._loaded[name]
        return adopted

    def _shrink(self, limit: int) -> None:
        self._stop(self._too_many(limit))

    def _too_many(self, limit: int) -> list[str]:
        """Of those not in use, the least recently used first."""
        idle = [name for name in self._loaded if not self._users[name]]
        return idle[: max(0, len(self._loaded) - limit)]

    def _stop(self, names: list[str]) -> None:
        for name in names:
            self._loaded.pop(name).stop()


_KEPT = KeptGenerators()


@contextmanager
def open_generator(model: ModelRef, folder: Path, config: ServingConfig) -> Iterator[TextGenerator]:
    """A generator for `model`, whose files lie in `folder`; it stays loaded for the next one who opens it.

    With `config.url` the folder is still needed: prompts are rendered here, by the model's own tokenizer. A
    server that died since its last use is started again. Servers end with this process, however that ends. With
    `config.reload_weights` the server of a model that must leave takes the new one's weights, where it can.

    Raises: ServingError: the model cannot be served as configured.
    """
    name = f"{model.content_hash} {config.model_dump_json()}"
    load, adopt = partial(_load, model, folder, config), partial(_adopt, model, folder, config)
    with _KEPT.use(name, config.num_servers_kept, load, adopt) as generator:
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

    if config.url is None:
        return start(folder, config)
    try:
        return attach(model, folder, config)
    except OtherModelError as error:
        if config.on_other_model == "fail":
            raise
        log.warning("a server is started here for %s: %s", folder, error)
        return start(folder, config)


def _adopt(model: ModelRef, folder: Path, config: ServingConfig, leaving: LoadedGenerator) -> LoadedGenerator | None:
    if not config.reload_weights or config.url is not None:  # what the URL serves is wanted from there
        return None
    from tasks.serving.swap import swapped

    return swapped(leaving, model, folder, config)
