"""A question set as a run asks it: read once, so that every policy answers the same questions (figure 9).

*Reads* a file or hub dataset in the HHH format. *Writes* `question_sets`. A question that cannot be used stays, with
its reason.
"""

from collections import Counter
from typing import Any, ClassVar

from tasks.calibration.config import QuestionSet
from tasks.calibration.reading import read_questions
from tasks.schema import DatasetRef, Question
from tasks.stage import Session, Stage, StageFailed
from tasks.store import Store
from tasks.store.identity import content_hash, digest, rows_to_table


class QuestionSetStage(Stage):
    """Read and name the questions of one set."""

    stage: ClassVar[str] = "question_set"
    dataset: ClassVar[str] = "question_sets"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True

    config: QuestionSet

    def extra_identity(self, store: Store) -> dict[str, Any]:
        # the file is outside the store, so its content is the identity and its name is not
        return {"config": {}, "rows": content_hash(digest([i, r.model_dump()]) for i, r in enumerate(self.rows()))}

    def rows(self) -> list[Question]:
        return read_questions(self.config.source, self.config.limit)

    def make(self, session: Session) -> DatasetRef:
        rows = self.rows()
        if not any(row.status == "ok" for row in rows):
            reasons = Counter(row.reason for row in rows)
            worst = reasons.most_common(1)[0][0] if reasons else "it is empty"
            raise StageFailed(
                f"question set {self.config.name} ({self.config.source}): no usable question in it; most often: {worst}"
            )
        metrics = {"source": source_name(self.config.source), "usable": sum(row.status == "ok" for row in rows)}
        table = rows_to_table(rows, Question)
        return session.store.commit_rows(self.derivation(session.store), table, metrics=metrics, cost={})


def source_name(source: str) -> str:
    """Where the questions are from, for whoever reads the manifest: of a file its name, of the hub the commit too."""
    return source if source.startswith("hf://") else source.rstrip("/").rpartition("/")[2]
