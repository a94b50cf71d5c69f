"""Held-out prompts are held out from everything that trained a policy, by its lineage and not only by this run's files.

*Reads* `prompts`; of every policy the datasets that its trainings read, as their manifests name them: prompts, and the
prompts of all preferences, human ones among them. *Writes* `gates`. Copies and near copies are found, by row.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from tasks.gates import GatesConfig
from tasks.gates.leakage import Text, find_leaks
from tasks.gates.start import leakage_gates
from tasks.prompt_rows import read_prompts, read_rows
from tasks.schema import DatasetRef, Gate, ModelRef, Preference, Prompt
from tasks.stage import Session, Stage
from tasks.store import Manifest, Store
from tasks.store.identity import rows_to_table

TRAINED_ON = ("prompts", "preferences")
"""Datasets whose rows begin with a prompt that a policy may have learnt."""


class LeakageStage(Stage):
    """Whether any policy was trained on what it is evaluated on."""

    stage: ClassVar[str] = "leakage"
    dataset: ClassVar[str] = "gates"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True

    prompts: DatasetRef
    policies: dict[str, ModelRef]
    """Those of the store; what an outside model was trained on nobody knows."""
    config: GatesConfig

    def identity_config(self) -> dict[str, Any]:
        names = ("near_duplicate", "max_exact_leaks", "max_near_leaks", "min_samples", "on_failure")
        return {name: getattr(self.config, name) for name in names}

    def make(self, session: Session) -> DatasetRef:
        store = session.store
        sources = trained_on(store, self.policies.values())
        held_out = [text_of(p.prompt_id, p) for p in read_prompts(store, self.prompts, "held_out") if p.status == "ok"]
        leaks = find_leaks(training_texts(store, sources), held_out, self.config.near_duplicate)
        gates = [
            gate.model_copy(update={"row_id": f"trained_on/{gate.row_id}", "gate": f"trained_on_{gate.gate}"})
            for gate in leakage_gates(leaks, len(held_out), self.config)
        ]
        metrics = {"failed": sum(not gate.passed for gate in gates), "searched": sorted(sources)}
        return store.commit_rows(self.derivation(store), rows_to_table(gates, Gate), metrics=metrics, cost={})


def trained_on(store: Store, policies: Iterable[ModelRef]) -> dict[str, Manifest]:
    """Every version of `TRAINED_ON` that the policies descend from, by `dataset/version`."""
    found, waiting = dict[str, Manifest](), [f"{policy.model}/{policy.version}" for policy in policies]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        dataset, _, version = name.rpartition("/")
        manifest = store.manifest(dataset, version)
        if dataset in TRAINED_ON:
            found[name] = manifest
        cited = {each for each in manifest.derivation.cites.values() if not each.startswith("external/")} - seen
        seen |= cited
        waiting += cited
    return found


def training_texts(store: Store, sources: Mapping[str, Manifest]) -> Iterator[Text]:
    """Their prompts, each named by its dataset, version and row."""
    for name, manifest in sorted(sources.items()):
        dataset, _, version = name.rpartition("/")
        where, ref = f"{dataset}/{version[:12]}", manifest.dataset_ref()
        if dataset == "prompts":
            rows = (p for p in read_prompts(store, ref, "train") if p.status == "ok")
            yield from (text_of(f"{where} row {p.row_id}", p) for p in rows)
        else:
            for row in read_rows(store, ref, Preference):
                yield Text(f"{where} row {row.row_id}", "\n".join(turn.content for turn in row.prompt))


def text_of(name: str, prompt: Prompt) -> Text:
    """The whole conversation, without its speakers."""
    return Text(name, "\n".join(turn.content for turn in prompt.messages))
