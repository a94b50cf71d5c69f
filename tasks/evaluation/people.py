"""Which bouts are worth a person's time, the table that people get, and reading it back.

Half of them are those that the judge is least certain about. The other half decide the frontier: bouts of two policies
that stand next to each other in the ratings with intervals that overlap, so that a few answers may tell them apart.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from tasks.evaluation.bouts import Bout, MatchConfig, question_of
from tasks.evaluation.elo import Rating
from tasks.preference.sheet import (
    TEXTS,
    Line,
    Problem,
    duplicates,
    expect_as_exported,
    given,
    order_for,
    same_text,
    unknown_answer,
)
from tasks.prompts import transcript
from tasks.schema import Kind, Match, Order
from tasks.store.identity import digest

COLUMNS = ("better", "question", "prompt", "completion_a", "completion_b", "why", "match_id", "order")

Why = Literal["uncertain", "decisive"]
PROBS: dict[tuple[str, Order], float] = {
    ("a", "ab"): 1.0, ("b", "ab"): 0.0, ("a", "ba"): 0.0, ("b", "ba"): 1.0, ("tie", "ab"): 0.5, ("tie", "ba"): 0.5,
}  # fmt: skip
"""P(a is better) by what was written and the order that was shown."""


class Chosen(NamedTuple):
    """A bout for people, and why."""

    match: Match
    why: Why


def choose(matches: Sequence[Match], ratings: Mapping[Kind, Sequence[Rating]], num: int, seed: int) -> list[Chosen]:
    """Bouts for people: as many uncertain as decisive ones, none twice, none of equal texts."""
    equal = 0.5  # in both orders: equal texts, which nobody was asked about
    judged = [m for m in matches if m.prob_a is not None and not (m.prob_ab == m.prob_ba == equal)]
    by_doubt = sorted(judged, key=lambda m: (abs((m.prob_a or 0.0) - 0.5), digest([seed, m.row_id])))
    close = {(kind, pair) for kind, found in ratings.items() for pair in close_pairs(found)}
    decisive = [m for m in judged if (m.kind, frozenset((m.policy_a, m.policy_b))) in close]
    drawn = sorted(decisive, key=lambda m: digest([seed, "decisive", m.row_id]))
    chosen: dict[str, Chosen] = {m.row_id: Chosen(m, "decisive") for m in drawn[: num // 2]}
    for m in by_doubt:
        if len(chosen) >= num:
            break
        chosen.setdefault(m.row_id, Chosen(m, "uncertain"))
    return list(chosen.values())


def close_pairs(ratings: Sequence[Rating]) -> list[frozenset[str]]:
    """Neighbours in the ratings whose intervals overlap."""
    ranked = sorted(ratings, key=lambda r: r.elo)
    return [
        frozenset((lower.policy, upper.policy))
        for lower, upper in itertools.pairwise(ranked)
        if lower.high >= upper.low
    ]


def cells_of(bout: Bout, config: MatchConfig, why: str, order: Order) -> dict[str, str]:
    """What a line says, with an empty `better`; order `ba` shows b's completion as `a`."""
    sides = [bout.a.completion or "", bout.b.completion or ""]
    first, second = sides if order == "ab" else sides[::-1]
    said = transcript(bout.meeting.prompt.messages)
    cells = ("", question_of(bout, config), said, first, second, why, bout.id, order)
    return dict(zip(COLUMNS, cells, strict=True))


def lines_for(
    chosen: Sequence[Chosen], bouts: Mapping[str, Bout], config: MatchConfig, seed: int
) -> list[dict[str, str]]:
    """The table's lines; which completion people see first is drawn, so that a habit of theirs counts for nobody."""
    names = [(each.match.row_id, each.why) for each in chosen]
    return [cells_of(bouts[name], config, why, order_for(name, seed)) for name, why in names]


def answers_of(name: str, lines: Sequence[Line], bouts: Mapping[str, Bout], config: MatchConfig) -> dict[str, float]:
    """P(a is better) by the bout's id, of the lines that are answered.

    Raises: SheetError: names line and column of what is not as exported, or says that nothing is answered.
    """
    problems = (p for line in lines for p in problems_of(line, bouts, config))
    answered = expect_as_exported(name, lines, [*duplicates(lines, "match_id"), *problems])
    return {line.cells["match_id"]: prob_of(line) for line in answered}


def prob_of(line: Line) -> float:
    return PROBS[given(line), "ab" if line.cells["order"] == "ab" else "ba"]


def problems_of(line: Line, bouts: Mapping[str, Bout], config: MatchConfig) -> Iterable[Problem]:
    """What is wrong with one line by itself."""
    cells = line.cells
    yield from unknown_answer(line)
    known = {"match_id": bouts, "order": ("ab", "ba")}
    unknown = [column for column, names in known.items() if cells[column] not in names]
    for column in unknown:
        yield Problem(line.number, column, f"{cells[column]!r} is not of this run; export its bouts anew")
    if unknown:
        return
    bout = bouts[cells["match_id"]]
    exported = cells_of(bout, config, cells["why"], "ab" if cells["order"] == "ab" else "ba")
    for column in TEXTS:
        if not same_text(cells[column], exported[column]):
            yield Problem(
                line.number, column, "is not the text of this run; an answer to another text says nothing of it"
            )
