"""Supervised finetuning on revisions and helpful completions (section 3.2): the SL-CAI policy.

*Reads* `prompts`, `completions`, `revisions`, a pretrained model. *Writes* `models/sl`. The paper finetunes a
pretrained model on the revisions of all rounds (its section 1.2 says the final ones: both are a setting).
"""

import math
from typing import ClassVar, Literal

from pydantic import Field

from tasks.policy_stage import PolicyStage
from tasks.revision.wording import Requests, critique_turns, revision_turns
from tasks.schema import Completion, DatasetRef, ModelRef, Prompt, Revision, Settings
from tasks.stage import Session
from tasks.store import Store
from tasks.store.identity import digest, table_to_rows
from tasks.train import run_training
from tasks.training.config import SFTConfig
from tasks.training.examples import SFTExample


class SFTStageConfig(Settings):
    """What the SL policy learns from."""

    rounds: Literal["all", "last"] = "all"
    """Revisions of every round (section 3.2), or only each prompt's last."""
    form: Literal["revisions", "dialogue"] = "revisions"
    """`revisions`: the prompt is answered with the revision (the paper). `dialogue`: the policy learns to criticise
    and to revise, each as the next turn of prompt, completion, critique request, critique, revision request; the
    completion itself is read and not learned. The prompt alone is then answered as the helpful examples teach."""
    max_revisions: int | None = Field(None, ge=1)
    """Take only so many red-team prompts' revisions, the first by prompt id. Empty: all."""
    helpful_ratio: float | None = Field(None, ge=0)
    """Helpful examples beside each one made of revisions (of a dialogue, critique and revision are two); which are
    taken follows from a hash of their rows. Empty: all."""
    training: SFTConfig = SFTConfig()
    """The training itself."""


class SFTStage(PolicyStage):
    """The SL-CAI policy."""

    stage: ClassVar[str] = "sft"
    dataset: ClassVar[str] = "models/sl"
    policies: ClassVar[str] = "models/sl_policies"
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
        return run_training(
            self,
            session,
            self.config.training,
            examples,
            kind="sft",
            model=self.pretrained,
            on_policy=lambda folder, step: self.keep_policy(store, folder, step),
        )

    def keep_every(self) -> int:
        return 0 if self.keep is not None else self.config.training.keep_every

    def most_steps(self) -> int:
        learned = self.revisions.rows * (2 if self.config.form == "dialogue" else 1) + self.completions.rows
        return self.config.training.epochs * math.ceil(learned / self.config.training.batch_size)

    def keep_as_result(self, store: Store, kept: ModelRef) -> ModelRef:
        """The kept policy's files as this version, with its training's metrics and the reason."""
        metrics = store.manifest(kept.model, kept.version).metrics
        metrics = {**metrics, "kept": {"version": f"{kept.model}/{kept.version}", "reason": self.keep_note}}
        return store.commit_model(self.derivation(store), store.fetch_model(kept), metrics=metrics, cost={})


def sft_examples(
    prompts: list[Prompt], completions: list[Completion], revisions: list[Revision], config: SFTStageConfig
) -> list[SFTExample]:
    """What is learned of revisions of red-team prompts, then completions of helpful ones, in row order.

    Raises: ValueError: `helpful_ratio` asks for more helpful completions than there are.
    """
    by_id = {prompt.prompt_id: prompt for prompt in prompts if prompt.split == "train"}
    usable = [row for row in completions if row.status == "ok"]
    chosen = choose_revisions([row for row in revisions if stands(row)], config)
    if config.form == "dialogue":
        before = texts_before(usable, revisions)
        learned = [e for row in chosen for e in dialogue_examples(row, by_id[row.prompt_id], before[row.row_id])]
    else:
        learned = [SFTExample(prompt=by_id[row.prompt_id].messages, completion=row.revision or "") for row in chosen]
    helpful = [row for row in usable if by_id[row.prompt_id].kind == "helpful" and row.completion is not None]
    for row in choose_helpful(helpful, len(learned), config.helpful_ratio):
        learned.append(SFTExample(prompt=by_id[row.prompt_id].messages, completion=row.completion or ""))
    return learned


def texts_before(completions: list[Completion], revisions: list[Revision]) -> dict[str, str]:
    """The text that each round read, by row id: the first one the completion, the others what rounds before made."""
    newest = {row.prompt_id: row.completion or "" for row in completions if row.sample == 0}
    before = {}
    for row in revisions:  # rounds come in order
        before[row.row_id] = newest.get(row.prompt_id, "")  # a round without a completion was skipped: none reads it
        if row.status == "ok" and row.revision is not None:
            newest[row.prompt_id] = row.revision
    return before


def dialogue_examples(row: Revision, prompt: Prompt, before: str) -> list[SFTExample]:
    """The critique, where there is one, and the revision: each after the turns that led to it (section 3.1)."""
    requests = Requests(row.critique_request, row.revision_request)
    revised = SFTExample(
        prompt=revision_turns((), prompt.messages, before, requests, row.critique or None),
        completion=row.revision or "",
    )
    if not row.critique:
        return [revised]
    return [SFTExample(prompt=critique_turns((), prompt.messages, before, requests), completion=row.critique), revised]


def choose_helpful(rows: list[Completion], num_others: int, ratio: float | None) -> list[Completion]:
    """`ratio` rows for each of the others, in order; those with the smallest hash of their row id."""
    if ratio is None:
        return rows
    wanted = round(ratio * num_others)
    if wanted > len(rows):
        raise ValueError(
            f"sft: helpful_ratio is {ratio:g}, which asks for {wanted} helpful examples beside {num_others} made of "
            f"revisions, but there are {len(rows)}; lower it, raise respond.num_helpful_samples or give helpful prompts"
        )
    kept = {row.row_id for row in sorted(rows, key=lambda row: digest(["sft", row.row_id]))[:wanted]}
    return [row for row in rows if row.row_id in kept]


def stands(revision: Revision) -> bool:
    """Whether the round came to a text: a no-op counts, as in the paper, for it says that the text may stay."""
    return revision.status in ("ok", "skipped") and revision.revision is not None


def choose_revisions(revisions: list[Revision], config: SFTStageConfig) -> list[Revision]:
    if config.rounds == "last":
        revisions = list({row.prompt_id: row for row in revisions}.values())  # rounds come in order
    if config.max_revisions is None:
        return revisions
    kept = set(sorted({row.prompt_id for row in revisions})[: config.max_revisions])
    return [row for row in revisions if row.prompt_id in kept]
