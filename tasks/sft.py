"""Supervised finetuning on revisions and helpful completions (section 3.2): the SL-CAI policy.

*Reads* `prompts`, `completions`, `revisions`, a pretrained model. *Writes* `models/sl`. The paper finetunes a
pretrained model on the revisions of all rounds (its section 1.2 says the final ones: both are a setting).
"""

from typing import ClassVar, Literal

from pydantic import Field

from tasks.schema import Completion, DatasetRef, Frozen, ModelRef, Prompt, Revision
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import table_to_rows
from tasks.train import run_training
from tasks.training.config import SFTConfig
from tasks.training.examples import SFTExample


class SFTStageConfig(Frozen):
    """What the SL policy learns from."""

    rounds: Literal["all", "last"] = "all"
    """Revisions of every round (section 3.2), or only each prompt's last."""
    max_revisions: int | None = Field(None, ge=1)
    """Take only so many red-team prompts' revisions, the first by prompt id; None takes all."""
    training: SFTConfig = SFTConfig()
    """The training itself."""


class SFTStage(Stage):
    """The SL-CAI policy."""

    stage: ClassVar[str] = "sft"
    dataset: ClassVar[str] = "models/sl"
    code_version: ClassVar[int] = 2
    operational: ClassVar[frozenset[str]] = frozenset({"training.checkpoint_every"})

    prompts: DatasetRef
    completions: DatasetRef
    revisions: DatasetRef
    pretrained: ModelRef
    config: SFTStageConfig
    keep: ModelRef | None = None
    """An SL policy of an earlier run to keep instead of training one; by its content it enters the identity."""
    keep_note: str = ""
    """Why it is kept, for lineage."""

    def make(self, session: Session) -> ModelRef:
        store = session.store
        if self.keep is not None:
            return self.keep_as_result(store, self.keep)
        examples = sft_examples(
            table_to_rows(store.read(self.prompts), Prompt),
            table_to_rows(store.read(self.completions), Completion),
            table_to_rows(store.read(self.revisions), Revision),
            self.config,
        )
        return run_training(self, session, self.config.training, examples, kind="sft", model=self.pretrained)

    def keep_as_result(self, store: Store, kept: ModelRef) -> ModelRef:
        """The kept policy's files as this version, with its training's metrics and the reason."""
        metrics = store.manifest(kept.model, kept.version).metrics
        metrics = {**metrics, "kept": {"version": f"{kept.model}/{kept.version}", "reason": self.keep_note}}
        return store.commit_model(self.derivation(store), store.fetch_model(kept), metrics=metrics, cost={})


def sft_examples(
    prompts: list[Prompt], completions: list[Completion], revisions: list[Revision], config: SFTStageConfig
) -> list[SFTExample]:
    """Prompt and completion pairs: revisions of red-team prompts, then completions of helpful ones, in row order."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts if prompt.split == "train"}
    chosen = choose_revisions([row for row in revisions if stands(row)], config)
    pairs = [(row.prompt_id, row.revision) for row in chosen]
    pairs += [
        (row.prompt_id, row.completion)
        for row in completions
        if row.status == "ok" and by_id[row.prompt_id].kind == "helpful"
    ]
    return [SFTExample(prompt=by_id[pid].messages, completion=text) for pid, text in pairs if text is not None]


def stands(revision: Revision) -> bool:
    """Whether the round came to a text: a no-op counts, as in the paper, for it says that the text may stay."""
    return revision.status == "ok" or (revision.status == "skipped" and revision.revision is not None)


def choose_revisions(revisions: list[Revision], config: SFTStageConfig) -> list[Revision]:
    if config.rounds == "last":
        revisions = list({row.prompt_id: row for row in revisions}.values())  # rounds come in order
    if config.max_revisions is None:
        return revisions
    kept = set(sorted({row.prompt_id for row in revisions})[: config.max_revisions])
    return [row for row in revisions if row.prompt_id in kept]
