"""Plans stages one after another, as a run would make them: what a stage would give stands in for what it gave.

Cheap stages (files and rows, no model) are made for real, into a folder beside the store that is thrown away: so
their outcome is known and what follows is exact. Where the outcome is not known, the result is a pending reference,
whose content is the derivation that will make it (design idea 2).
"""

from pathlib import Path
from typing import TypeVar

from tasks.chunks import RowForecast, forecast_rows
from tasks.generation import GeneratingStage
from tasks.keep import KeepConfig, Touched, keep_policy
from tasks.planning.costs import forecast_cost
from tasks.planning.plan import Plan, StagePlan
from tasks.planning.reasons import explain, nearest
from tasks.policy_stage import PolicyStage
from tasks.schema import PENDING, DatasetRef, ModelRef, Row, is_pending
from tasks.sft import SFTStage
from tasks.stage import Session, Stage
from tasks.store import Derivation, Store, resolve_external_model
from tasks.store.folder import FolderBackend
from tasks.store.identity import table_to_rows
from tasks.store.overlay import OverlayBackend

Ref = DatasetRef | ModelRef
RowT = TypeVar("RowT", bound=Row)


class Planner:
    """Goes through the method like a run, and makes nothing that costs."""

    def __init__(self, store: Store, scratch: Path) -> None:
        over = FolderBackend.open(str(scratch))
        self.store = Store(OverlayBackend(store.backend, over), store.cache)
        self.stages: list[StagePlan] = []
        self.likely: dict[str, str] = {}
        """Pending content -> what it will be if it comes out as it was before."""
        self.to_make: dict[str, float] = {}
        """Pending content -> share of its rows that will be made."""
        self.planned: dict[str, Ref] = {}
        """Version -> what a stage of this plan will make; asked for again, it is there already."""

    def plan(self, uri: str, constitution: str) -> Plan:
        return Plan(store=uri, constitution=constitution, stages=self.stages)

    def outside_model(self, name: str) -> ModelRef:
        return resolve_external_model(name)

    def dataset(self, stage: Stage) -> DatasetRef:
        ref = self.plan_stage(stage)
        assert isinstance(ref, DatasetRef)
        return ref

    def model(self, stage: Stage) -> ModelRef:
        ref = self.plan_stage(stage)
        assert isinstance(ref, ModelRef)
        return ref

    def keeping(self, stage: SFTStage, config: KeepConfig) -> SFTStage:
        """The stage, told to keep an earlier policy if so few of its revisions will be made anew."""
        return keep_policy(self.store, stage, config, self.touched)

    def kept_policies(self, stage: PolicyStage) -> dict[int, ModelRef]:
        """Those in the store; of a training that is still to be, all that there may be."""
        if not has_pending(stage.derivation(self.store)) and stage.result(self.store) is not None:
            return stage.kept(self.store)
        return {
            update: ModelRef(model=derivation.dataset, version=derivation.version, content_hash=content)
            for update in stage.kept_steps(stage.most_steps())
            for derivation in [stage.policy_derivation(self.store, update)]
            for content in [f"{PENDING}{derivation.version}"]
        }

    def known_rows(self, ref: DatasetRef, row_type: type[RowT]) -> list[RowT] | None:
        return None if is_pending(ref.content_hash) else table_to_rows(self.store.read(ref), row_type)

    def touched(self, store: Store, old: DatasetRef, new: DatasetRef) -> Touched:
        from tasks.keep import count_touched

        if not is_pending(new.content_hash):
            return count_touched(store, old, new)
        share = self.to_make.get(new.content_hash, 1.0)
        return Touched(rows=round(share * new.rows), of=new.rows)

    def plan_stage(self, stage: Stage) -> Ref:
        derivation = stage.derivation(self.store)
        pending = has_pending(derivation)
        found = self.planned.get(derivation.version) or (None if pending else stage.result(self.store))
        if found is not None:
            return self.note(stage, derivation, found, "fresh", [])
        earlier = nearest(self.store, derivation)
        reasons = explain(self.store, derivation, earlier)
        if isinstance(stage, SFTStage) and stage.keep is not None:
            return self.note(stage, derivation, self.kept(stage, derivation), "kept", [stage.keep_note])
        if stage.cheap and not pending:
            return self.note(stage, derivation, stage.make(Session(self.store)), "stale", reasons)
        ref = self.planned[derivation.version] = self.pending(stage, derivation)
        if earlier is not None:
            self.likely[ref.content_hash] = earlier.content_hash
        reproduced = pending and self.store.find(stage.dataset, self.as_before(derivation).version) is not None
        return self.note(stage, derivation, ref, "stale_unless_reproduced" if reproduced else "stale", reasons)

    def kept(self, stage: SFTStage, derivation: Derivation) -> ModelRef:
        assert stage.keep is not None
        return stage.keep.model_copy(update={"model": stage.dataset, "version": derivation.version})

    def pending(self, stage: Stage, derivation: Derivation) -> Ref:
        content = f"{PENDING}{derivation.version}"
        if stage.dataset.startswith("models/"):
            return ModelRef(model=stage.dataset, version=derivation.version, content_hash=content)
        rows = stage.num_rows(self.store) if isinstance(stage, GeneratingStage) else 0
        return DatasetRef(dataset=stage.dataset, version=derivation.version, content_hash=content, rows=rows)

    def as_before(self, derivation: Derivation) -> Derivation:
        """The derivation, if every pending input came out as it was before."""
        inputs = {
            role: ref.model_copy(update={"content_hash": self.likely.get(ref.content_hash, ref.content_hash)})
            for role, ref in derivation.inputs.items()
        }
        models = {role: self.likely.get(content, content) for role, content in derivation.models.items()}
        return derivation.model_copy(update={"inputs": inputs, "models": models})

    def note(self, stage: Stage, derivation: Derivation, ref: Ref, state: str, reasons: list[str]) -> Ref:
        stale = state.startswith("stale")
        rows = self.forecast(stage, derivation, ref) if stale else RowForecast(rows=rows_of(ref), to_make=0, exact=True)
        generates = isinstance(stage, GeneratingStage)
        spends = stale and (rows.to_make > 0 if generates else not stage.cheap)
        if rows.rows:
            self.to_make.setdefault(ref.content_hash, rows.to_make / rows.rows)
        self.stages.append(
            StagePlan.model_validate(
                {
                    "stage": stage.stage,
                    "dataset": stage.dataset,
                    "version": derivation.version,
                    "state": state,
                    "reasons": reasons,
                    "rows": rows.rows,
                    "rows_to_make": rows.to_make,
                    "exact": rows.exact,
                    "spends": spends,
                    "cost": forecast_cost(self.store, derivation, rows.to_make) if spends else None,
                }
            )
        )
        return ref

    def forecast(self, stage: Stage, derivation: Derivation, ref: Ref) -> RowForecast:
        if not isinstance(stage, GeneratingStage):
            return RowForecast(rows=rows_of(ref), to_make=0, exact=not has_pending(derivation))
        if not stage.asks_model():
            return RowForecast(rows=rows_of(ref), to_make=0, exact=True)
        if has_pending(derivation):
            return RowForecast(rows=rows_of(ref), to_make=rows_of(ref), exact=False)
        return forecast_rows(stage, self.store)


def has_pending(derivation: Derivation) -> bool:
    contents = [ref.content_hash for ref in derivation.inputs.values()] + list(derivation.models.values())
    return any(is_pending(content) for content in contents)


def rows_of(ref: Ref) -> int:
    return ref.rows if isinstance(ref, DatasetRef) else 0
