"""What a model can do besides being helpful and harmless: capability benchmarks, by lm-eval.

*Reads* a model. *Writes* `capabilities`: one row a metric of one task; lm-eval's own JSON lies beside them as the blob
`results.json`. It is no stage of a run: `./solon capabilities` makes it, a task at a time, so that one that was killed
loses one task. lm-eval's own cache of answers is not used: it is pickled, and knows requests but not whose they are.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from tasks.harness.environment import HarnessError, lm_eval_python
from tasks.harness.results import Capability, count_truncated, rows_of
from tasks.harness.running import (
    CapabilityConfig,
    Told,
    command,
    results_file,
    run_to_end,
    told_of,
    without_place,
)
from tasks.schema import DatasetRef, ModelRef, Row
from tasks.serving.vllm_engine import VLLMGenerator
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import rows_to_table
from tasks.store.models import file_sha256, model_hash


class CapabilitiesStage(Stage):
    """One task or group of lm-eval, of one model."""

    stage: ClassVar[str] = "capabilities"
    dataset: ClassVar[str] = "capabilities"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Row]] = Capability

    model: ModelRef
    task: str
    lm_eval: str
    """Version of lm-eval, which has the tasks."""
    include: Path | None = None
    """Folder of further tasks."""
    include_hash: str | None = None
    """Of its content. What a task fetches from elsewhere no version names."""
    config: CapabilityConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        asked = {"task": self.task, "lm_eval": self.lm_eval, "include": self.include_hash}
        return {"serving": self.run.serving.identity(), **asked}

    def make(self, session: Session) -> DatasetRef:
        store, began, version = session.store, time.monotonic(), self.derivation(session.store).version
        folder = store.fetch_model(self.model)
        told = told_of(folder, self.config, self.run.serving)
        # of this process: who measures the same at the same time works beside it, and the first to commit wins
        output = self.run.serving.scratch.absolute() / "lm-eval" / f"{version[:12]}-{os.getpid()}"
        self.ask(session, folder, told, output)
        results = json.loads(results_file(output).read_text(encoding="utf-8"))
        rows = rows_of(results, truncated(output, told), told.add_bos)
        return self.keep(store, results, rows, time.monotonic() - began)

    def ask(self, session: Session, folder: Path, told: Told, output: Path) -> None:
        """Have lm-eval ask a server of the model; it leaves results, samples and a log in `output`."""
        serving = self.run.serving

        def show(done: int, total: int) -> None:
            session.progress.update(done, total, self.task)

        with session.open_generator(self.model, folder, serving) as generator:
            assert isinstance(generator, VLLMGenerator), "lm-eval asks over HTTP"
            server = generator.server
            argv = command(lm_eval_python(), self.task, self.include, self.config, told, server, serving, output)
            run_to_end(argv, server, output, show)

    def keep(self, store: Store, results: dict[str, Any], rows: list[Capability], seconds: float) -> DatasetRef:
        derivation, metrics = self.derivation(store), {"task_hashes": results.get("task_hashes", {})}
        kept = json.dumps(without_place(results), indent=1, ensure_ascii=False)
        store.put_blob(self.dataset, derivation.version, "results.json", kept.encode())
        with store.writer(derivation) as writer:
            writer.append(rows_to_table(rows, Capability))
            # a recipe that no other version has: gc keeps what took GPU hours for longer than what did not
            return writer.commit(metrics=metrics, cost={"seconds": seconds}, reuse=derivation.version)


def truncated(output: Path, told: Told) -> dict[str, int]:
    """Documents by task that lost the beginning of a prompt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(told.tokenizer, trust_remote_code=False)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=told.add_bos, verbose=False)["input_ids"])

    return dict(count_truncated(output, encode, told.context_tokens))


def folder_hash(folder: Path) -> str:
    """Content hash of a folder of tasks, for identity. Raises: HarnessError: no folder, or none with a task."""
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    if not any(path.suffix == ".yaml" for path in found):
        raise HarnessError(f"--include {folder}: no folder with a task's .yaml file in it")
    return model_hash({path.relative_to(folder).as_posix(): file_sha256(path) for path in found})
