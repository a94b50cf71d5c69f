"""The constitution as a dataset, so that a stage on any machine reads exactly the principles it was given.

*Writes* `constitutions`: one row for each principle. Stages depend on the slice their phase uses, not on this version.
"""

from typing import Any, ClassVar

from constitutions import Constitution, Principle
from tasks.schema import DatasetRef, Row
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import canonical_json, digest, rows_to_table


class PrincipleRow(Row):
    """`constitutions`: one principle with its texts."""

    principle_id: str
    principle_hash: str
    cluster: str
    weight: float
    enabled: bool
    critique_request: str | None
    revision_request: str | None
    comparison_question: str | None
    document: str
    """The principle with every field, as JSON."""


class ConstitutionStage(Stage):
    """Keep one immutable copy of a constitution."""

    stage: ClassVar[str] = "constitution"
    dataset: ClassVar[str] = "constitutions"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True

    document: dict[str, Any]
    """The constitution with every field."""

    def extra_identity(self, store: Store) -> dict[str, Any]:
        principles = sorted(self.document["principles"], key=lambda principle: principle["id"])
        return {"document": self.document | {"principles": principles}}  # their order means nothing

    def make(self, session: Session) -> DatasetRef:
        derivation = self.derivation(session.store)
        constitution = Constitution.model_validate(derivation.config["document"])
        constitution.revision_principles(), constitution.comparison_principles()  # a phase without any is an error now
        table = rows_to_table([principle_row(p) for p in constitution.principles], PrincipleRow)
        return session.store.commit_rows(derivation, table, metrics={}, cost={})


def principle_row(principle: Principle) -> PrincipleRow:
    document = canonical_json(principle.model_dump(mode="json")).decode()
    return PrincipleRow(
        row_id=principle.id,
        reuse_key=digest(document),
        principle_id=principle.id,
        principle_hash=principle.hash,
        cluster=principle.cluster,
        weight=principle.weight,
        enabled=principle.enabled,
        critique_request=principle.critique_request,
        revision_request=principle.revision_request,
        comparison_question=principle.comparison_question,
        document=document,
    )


def read_constitution(store: Store, ref: DatasetRef) -> Constitution:
    """The constitution that `ref` names, exactly as it was kept."""
    manifest = store.manifest(ref.dataset, ref.version)
    return Constitution.model_validate(manifest.derivation.config["document"])
