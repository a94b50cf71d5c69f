"""What people prefer of some bouts: a slice that the AI judges are measured by (requirement 46).

*Reads* a table that `./solon matches export` wrote and people filled in, `prompts`, the `samples` of each policy.
*Writes* `matches`, those of the judge `people`. A line that is not as it was exported is an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tasks.evaluation.argilla import read_argilla
from tasks.evaluation.bouts import Bout, MatchConfig, names, read_bouts
from tasks.evaluation.names import PEOPLE
from tasks.evaluation.people import COLUMNS, answers_of
from tasks.preference.sheet import Line, read_sheet
from tasks.schema import DatasetRef, Match
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import content_hash, digest, rows_to_table


class HumanMatchesStage(Stage):
    """The answers of one table, each checked against what the policies say."""

    stage: ClassVar[str] = "human_matches"
    dataset: ClassVar[str] = "matches"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True

    prompts: DatasetRef
    samples: dict[str, DatasetRef]
    """By policy, in the order of training."""
    config: MatchConfig

    def identity_config(self) -> dict[str, Any]:
        return self.config.model_dump(include={"harmlessness_question", "helpfulness_question"})

    def extra_identity(self, store: Store) -> dict[str, Any]:
        answers = content_hash(digest([sorted(line.cells.items())]) for line in self.lines())
        return {"answers": answers, "policies": list(self.samples)}

    def lines(self) -> list[Line]:
        """Where the file lies and what it is called changes nothing."""
        path = Path(self.config.people)
        return read_argilla(path) if path.suffix == ".json" else read_sheet(path, COLUMNS)

    def make(self, session: Session) -> DatasetRef:
        lines = self.lines()
        rows = self.rows(session.store, lines)
        metrics = {"lines": len(lines), "answered": len(rows), "empty": len(lines) - len(rows)}
        derivation = self.derivation(session.store)
        return session.store.commit_rows(derivation, rows_to_table(rows, Match), metrics=metrics, cost={})

    def rows(self, store: Store, lines: Sequence[Line]) -> list[Match]:
        """One for each answered line, by the bout's id."""
        met = read_bouts(store, self.prompts, self.samples, {line.cells["match_id"] for line in lines})
        answers = answers_of(Path(self.config.people).name, lines, met, self.config)
        return [human_match(met[name], prob) for name, prob in sorted(answers.items())]


def human_match(bout: Bout, prob: float) -> Match:
    key = digest([bout.id, bout.a.completion, bout.b.completion, prob])
    return Match(**names(bout, PEOPLE), reuse_key=key, prob_ab=prob, prob_ba=prob, prob_a=prob)
