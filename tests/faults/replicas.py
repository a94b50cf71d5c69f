"""What becomes of a stage when one of its vLLM servers dies, freezes or is busy: `python -m tests.faults.replicas`.

Three real servers of the micro model (vLLM on a CPU, started one after the other) write the completions of `respond`
into a store. In the second chunk something happens to one of them. Each time all rows must be there, none twice, with
the content that one undisturbed server writes. Prints a line for each; exit code 1 where one is not as it must be.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from tasks.processes import free_port
from tasks.respond import RespondConfig, RespondStage
from tasks.schema import Completion, ModelRef
from tasks.serving import Sampling, ServingConfig, TextGenerator, close_all, open_generator
from tasks.serving.pool import Pool
from tasks.serving.server import VLLMServer, start_server
from tasks.stage import RunContext, Session
from tasks.store import Store, resolve_external_model
from tasks.store.identity import table_to_rows
from tests.worlds import commit, prompt

MODEL = Path(__file__).parents[2] / "tasks" / "micro" / "model"
CONTEXT_TOKENS = 2048
QUEUED = 6
"""Requests that the first server takes before it says 503."""
REJECTIONS = "vllm:admission_rejections_total"
CHUNK_ROWS = 120
NUM_CHUNKS = 5
DELAY_SECONDS = 0.7
"""After the second chunk began: its requests are under way then."""
ERRANDS = ("bake a cake", "mend the fence", "paint your boat", "lift this wagon", "plant a tree", "write a letter")
HEAD = f"{'event':<18} {'rows':>5} {'ok':>5} {'twice':>5}  {'same':<5} {'rows by server':<18} seconds"


class Replica:
    """A server that can be killed, frozen and started again where it was."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.config = ServingConfig(
            port=free_port(), scratch=folder, max_concurrency=32, extra_arguments=arguments, startup_seconds=600
        )
        self.start()

    def start(self) -> None:
        self.server: VLLMServer = start_server(MODEL, CONTEXT_TOKENS, self.config)

    @property
    def url(self) -> str:
        return self.server.url

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Its own, without the guard over them."""
        family = psutil.Process(self.server.process.pid).children(recursive=True)
        return [process for process in family if word in " ".join([process.name(), *process.cmdline()])]

    def signal(self, number: signal.Signals, word: str = "") -> None:
        for process in self.processes(word):
            os.kill(process.pid, number)

    def num_refused(self) -> int:
        """Requests to which it said 503, by its own count."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith(REJECTIONS)))


class World:
    """Prompts, a place for stores, and the servers."""

    def __init__(self, folder: Path, replicas: list[Replica]) -> None:
        self.folder, self.replicas = folder, replicas
        texts = [f"How do I {errand} number {number}?" for number in range(100) for errand in ERRANDS]
        self.prompts = [prompt(text) for text in texts]
        self.num_runs = 0
        self.expected = ""
        self.pool: Pool | None = None

    def run(self, url: str, event: Callable[[], object] = lambda: None) -> Store:
        """The stage in a store of its own; the event in its second chunk."""
        self.num_runs += 1
        store = Store.open(str(self.folder / f"store-{self.num_runs}"))
        calls = 0

        def call(name: str, work: Callable[[], Any]) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                threading.Timer(DELAY_SECONDS, event).start()
            return work()

        self.stage(store, url).make(Session(store, call, open_generator=self.opened))
        return store

    @contextmanager
    def opened(self, model: ModelRef, folder: Path, config: ServingConfig) -> Iterator[TextGenerator]:
        with open_generator(model, folder, config) as generator:
            server = generator.server  # type: ignore[attr-defined]
            self.pool = server if isinstance(server, Pool) else None
            yield generator

    def stage(self, store: Store, url: str) -> RespondStage:
        serving = ServingConfig(
            url=url, max_model_tokens=CONTEXT_TOKENS, dtype="float32", scratch=self.folder, max_concurrency=32
        )
        return RespondStage(
            run=RunContext(store=store.uri, serving=serving, chunk_rows=CHUNK_ROWS),
            prompts=commit(store, "prompts", self.prompts[: CHUNK_ROWS * NUM_CHUNKS], type(self.prompts[0])),
            helpful_only=resolve_external_model(str(MODEL)),
            config=RespondConfig(sampling=Sampling(max_tokens=48)),
        )

    @property
    def all_urls(self) -> str:
        return " ".join(replica.url for replica in self.replicas)

    def try_out(self, name: str, event: Callable[[], object] = lambda: None, url: str | None = None) -> bool:
        """Run, print what came of it, and say whether it is as it must be."""
        before, started = self.counts(), time.monotonic()
        store = self.run(url or self.all_urls, event)
        seconds = time.monotonic() - started
        (manifest,) = store.versions("completions")
        rows = table_to_rows(store.read(manifest.dataset_ref()), Completion)
        self.expected = self.expected or manifest.content_hash
        num_ok = sum(row.status == "ok" for row in rows)
        twice, same = len(rows) - len({row.row_id for row in rows}), manifest.content_hash == self.expected
        after = self.counts()
        shares = " ".join(str(after[each] - before.get(each, 0)) for each in after) or str(len(rows))
        print(f"{name:<18} {len(rows):5} {num_ok:5} {twice:5}  {same!s:<5} {shares:<18} {seconds:7.1f}", flush=True)
        return len(rows) == num_ok == CHUNK_ROWS * NUM_CHUNKS and not twice and same

    def counts(self) -> dict[str, int]:
        """Rows that each server of the pool has done."""
        return {each.url: each.num_answered for each in self.pool.replicas} if self.pool else {}

    def say(self) -> None:
        if self.pool:
            print(f"    then: {self.pool.describe()}", flush=True)


def trials(world: World) -> Iterator[bool]:
    first, second, third = world.replicas
    yield world.try_out("one server", url=second.url)
    yield world.try_out("three, one small")
    print(f"    the small one takes {QUEUED} requests and refused {first.num_refused()} with 503", flush=True)
    yield world.try_out("SIGSTOP", lambda: second.signal(signal.SIGSTOP))
    world.say()
    second.signal(signal.SIGCONT)
    yield world.try_out("kill -9 server", lambda: third.signal(signal.SIGKILL, "api_server"))
    world.say()
    print(f"    exit code {third.server.process.wait(60)}; starting it again meanwhile", flush=True)
    again = threading.Thread(target=third.start)
    again.start()
    yield world.try_out("one is restarting")
    again.join()
    num_answered = world.counts()[third.url]
    yield world.try_out("restarted")
    world.say()
    yield world.counts()[third.url] > num_answered
    yield world.try_out("kill -9 engine", lambda: second.signal(signal.SIGKILL, "EngineCore"))
    world.say()
    print(f"    the server whose engine was killed: exit code {second.server.process.wait(60)}", flush=True)


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m tests.faults.replicas",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    with tempfile.TemporaryDirectory(prefix="solon-replicas-") as name, ExitStack() as stack:
        stack.callback(close_all)
        replicas = []
        for arguments in ([f"--max-num-queued-reqs={QUEUED}"], [], []):
            replicas.append(Replica(Path(name), *arguments))
            stack.callback(lambda replica=replicas[-1]: replica.server.stop())
        print(HEAD, flush=True)
        failed = sum(not is_well for is_well in trials(World(Path(name), replicas)))
    print(f"{failed} not as they must be" if failed else "all as they must be")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
