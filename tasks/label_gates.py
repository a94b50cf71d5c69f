"""Gates before labels train anything: what they, and probes with known answers, say of each evaluator.

*Reads* `comparisons`, the `labels` and `probes` of each evaluator. *Writes* `gates`. Nothing is generated.
"""

from typing import ClassVar

from tasks.gates import GatesConfig
from tasks.gates.labels import label_gates
from tasks.gates.pairs import read_label_set
from tasks.gates.probing import probe_gates
from tasks.prompt_rows import read_rows
from tasks.schema import Comparison, DatasetRef, Gate, Label, Probe
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import rows_to_table


class LabelGatesStage(Stage):
    """What has to hold of every evaluator."""

    stage: ClassVar[str] = "label_gates"
    dataset: ClassVar[str] = "gates"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset({"canaries", "canary_principles", "num_canary_principles"})

    comparisons: DatasetRef
    labels: dict[str, DatasetRef]
    """By evaluator."""
    probes: dict[str, DatasetRef]
    """By evaluator, the same ones."""
    config: GatesConfig

    def make(self, session: Session) -> DatasetRef:
        store = session.store
        gates = [gate for evaluator in self.labels for gate in self.gates(store, evaluator)]
        metrics = {"failed": sum(not gate.passed for gate in gates)}
        return store.commit_rows(self.derivation(store), rows_to_table(gates, Gate), metrics=metrics, cost={})

    def gates(self, store: Store, evaluator: str) -> list[Gate]:
        comparisons = read_rows(store, self.comparisons, Comparison)
        found = read_label_set(comparisons, read_rows(store, self.labels[evaluator], Label))
        probes = list(read_rows(store, self.probes[evaluator], Probe))
        return [*label_gates(found, evaluator, self.config), *probe_gates(probes, evaluator, self.config)]
