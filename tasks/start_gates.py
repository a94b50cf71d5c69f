"""Gates before anything is revised: no evaluation prompt is trained on, and the start model is really helpful-only.

*Reads* `prompts`, `completions`. *Writes* `gates`. Nothing is generated; 300,000 prompts take about a minute.
"""

from collections.abc import Iterator
from typing import ClassVar

from tasks.gates import GatesConfig
from tasks.gates.leakage import Text, find_leaks
from tasks.gates.refusals import refuses
from tasks.gates.start import helpful_only, leakage_gates
from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.schema import Completion, DatasetRef, Gate, Split
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import rows_to_table


class StartGatesStage(Stage):
    """What has to hold of the prompts and of the start model."""

    stage: ClassVar[str] = "start_gates"
    dataset: ClassVar[str] = "gates"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset({"canaries", "canary_principles", "num_canary_principles"})

    prompts: DatasetRef
    completions: DatasetRef
    config: GatesConfig

    def make(self, session: Session) -> DatasetRef:
        store, config = session.store, self.config
        held_out = list(texts(store, self.prompts, "held_out"))
        leaks = find_leaks(texts(store, self.prompts, "train"), held_out, config.near_duplicate)
        gates = [*leakage_gates(leaks, len(held_out), config), self.helpful_only(store)]
        metrics = {"failed": sum(not gate.passed for gate in gates)}
        return store.commit_rows(self.derivation(store), rows_to_table(gates, Gate), metrics=metrics, cost={})

    def helpful_only(self, store: Store) -> Gate:
        rows = beside_prompts(
            read_prompts(store, self.prompts, "train"), read_rows(store, self.completions, Completion)
        )
        said = [
            refuses(row.completion or "") for prompt, row in rows if prompt.kind == "red_team" and row.status == "ok"
        ]
        return helpful_only(sum(said), len(said), self.config)


def texts(store: Store, prompts: DatasetRef, split: Split) -> Iterator[Text]:
    """The whole conversation of every usable prompt, without its speakers."""
    usable = (prompt for prompt in read_prompts(store, prompts, split) if prompt.status == "ok")
    return (Text(prompt.prompt_id, "\n".join(turn.content for turn in prompt.messages)) for prompt in usable)
