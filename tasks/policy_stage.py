"""A stage that trains a policy: beside its result the policies along the way, each a model of its own."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from tasks.schema import ModelRef
from tasks.stage import Stage
from tasks.store import Derivation, Store


class PolicyStage(Stage):
    """Subclasses say how often a policy is kept and how many steps there may be; an update of PPO is a step here."""

    policies: ClassVar[str]
    """The dataset of the policies along the way."""

    def keep_every(self) -> int:
        """Steps between policies that are kept; 0 keeps none."""
        raise NotImplementedError

    def most_steps(self) -> int:
        """Steps that the training has at most, for a plan: rows that are left out make fewer."""
        raise NotImplementedError

    def keep_policy(self, store: Store, folder: Path, step: int) -> None:
        """Commit a policy along the way; a run that went over the same steps twice finds it committed."""
        store.commit_model(self.policy_derivation(store, step), folder, metrics={"update": step}, cost={})

    def policy_derivation(self, store: Store, step: int) -> Derivation:
        """Of the policy after so many steps."""
        derivation = self.derivation(store)
        config = {**derivation.config, "update": step}
        return derivation.model_copy(update={"dataset": self.policies, "config": config})

    def kept_steps(self, num_steps: int) -> range:
        """The steps of so long a training whose policies are kept."""
        every = self.keep_every()
        return range(every, num_steps + 1, every) if every else range(0)

    def kept(self, store: Store) -> dict[int, ModelRef]:
        """The policies along the way that are in the store, by the steps behind them."""
        versions = {step: self.policy_derivation(store, step).version for step in self.kept_steps(self.most_steps())}
        found = {step: store.find(self.policies, version) for step, version in versions.items()}
        return {step: manifest.model_ref() for step, manifest in found.items() if manifest}

    def missing(self, store: Store, kept: Collection[int]) -> list[int]:
        """Steps of the finished training whose policies are not among those that are in the store."""
        trained = self.result(store)
        assert trained is not None, "the policy is made before those along its way are asked for"
        final: dict[str, Any] = store.manifest(self.dataset, trained.version).metrics.get("final") or {}
        num_steps = final.get("num_updates", final.get("num_steps", 0))
        return [step for step in self.kept_steps(num_steps) if step not in kept]
