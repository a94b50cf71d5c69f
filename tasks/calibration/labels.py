"""The kinds of label that can be made of answers: of one order or both, hard or soft, reasoned, clamped."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from tasks.calibration.figures import Array, Form, clamp, form_of, preference
from tasks.schema import Answer, AnswerForm, Order

CLAMP = (0.4, 0.6)
"""Between which the paper keeps labels that were reasoned about (section 4.1)."""
BOTH_ORDERS, LIKELIEST = "soft, both orders", "likeliest letter"
REASONED, CLAMPED, LIKELIEST_REASONED = "reasoned", "reasoned, clamped", "likeliest letter after reasoning"
SHORT = {
    BOTH_ORDERS: "soft", LIKELIEST: "soft", REASONED: "reasoned", LIKELIEST_REASONED: "reasoned", CLAMPED: "clamped",
}  # fmt: skip
"""Short names of the kinds that a run may train on; those of one order are there to be compared with."""


class Calibration(NamedTuple):
    """Kinds of label on the same questions, the first of them to be compared with."""

    forms: list[Form]
    """None where no question was answered in every form."""
    questions: dict[str, str]
    """Category by the id of each question that all forms have a label of."""
    left_out: Counter[str]
    """The others, by reason."""
    mass: float
    """Median probability of the options' letters; far below 1 the model does not answer in the form it is asked."""

    @property
    def best(self) -> Form:
        """The kind of label that says most: of both orders where there is one."""
        return self.forms[2] if len(self.forms) > 2 else self.forms[-1]

    @property
    def categories(self) -> list[str]:
        return list(self.questions.values())


Found = dict[tuple[AnswerForm, Order], Answer]
"""The answers to one question."""


def calibration_of(answers: Iterable[Answer]) -> Calibration:
    """Every kind of label that can be had of these answers.

    With more than two options anywhere only accuracy is told, in the order of the set.
    """
    found: dict[str, Found] = defaultdict(dict)
    for row in answers:
        found[row.question_id][row.form, row.order] = row
    good = {name: rows for name, rows in found.items() if all(row.status == "ok" for row in rows.values())}
    reasons = [next(r.reason or r.status for r in found[n].values() if r.status != "ok") for n in found.keys() - good]
    rows = list(good.values())
    categories = {name: next(iter(each.values())).category for name, each in good.items()}
    return Calibration(forms_of(rows) if rows else [], categories, Counter(sorted(reasons)), median_mass(rows))


def expect_labels(calibration: Calibration) -> Calibration:
    """Raises: ValueError: no question has a label in every form."""
    if calibration.forms:
        return calibration
    worst = calibration.left_out.most_common(1)[0][0]
    raise ValueError(f"calibrate: no question was answered in every form; most often: {worst}")


def forms_of(rows: Sequence[Found]) -> list[Form]:
    """Those of both orders where the first question has both: all of a set are put alike."""
    reasoned = ("reasoned", "ab") in rows[0]
    return two_options(rows, reasoned) if ("soft", "ba") in rows[0] else several_options(rows, reasoned)


def two_options(rows: Sequence[Found], reasoned: bool) -> list[Form]:
    """Hard and soft labels of one order, soft ones of both, reasoned ones of both, as they are and clamped."""
    one, both = probs_of(rows, "soft")[:, 0], probs_of(rows, "soft").mean(1)
    forms = [form_of("hard, one order", preference(one)), form_of("soft, one order", one), form_of(BOTH_ORDERS, both)]
    if reasoned:
        thought = probs_of(rows, "reasoned").mean(1)
        forms += [form_of(REASONED, thought), form_of(CLAMPED, clamp(thought, *CLAMP))]
    return forms


def several_options(rows: Sequence[Found], reasoned: bool) -> list[Form]:
    """Accuracy only: which order to ask is one of many."""
    forms: dict[str, AnswerForm] = {LIKELIEST: "soft", **({LIKELIEST_REASONED: "reasoned"} if reasoned else {})}
    return [Form(name, np.array([right(row[form, "ab"]) for row in rows]), None) for name, form in forms.items()]


def probs_of(rows: Sequence[Found], form: AnswerForm) -> Array:
    """Probability of the right option in either order, (questions, 2)."""
    return np.array([[prob(row[form, order]) for order in ("ab", "ba")] for row in rows])


def prob(row: Answer) -> float:
    assert row.probs is not None and row.correct is not None
    return row.probs[row.correct]


def right(row: Answer) -> float:
    """1 where the right option is the likeliest, a share of that where it is so with others."""
    assert row.probs is not None
    most = max(row.probs)
    return float(prob(row) == most) / row.probs.count(most)


def median_mass(rows: Sequence[Found]) -> float:
    masses = [row.mass for each in rows for (form, _), row in each.items() if form == "soft" and row.mass is not None]
    return median(masses) if masses else 0.0
