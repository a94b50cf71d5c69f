"""What a feedback model answers to questions whose right option is known, and the kinds of label made of it.

Answers are the log-probabilities of the options' letters, as in `tasks/judging.py`. The question is put as the file
puts it, and once more with its options in each other's place.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from tasks.calibration.figures import Array, Form, clamp, form_of, preference
from tasks.calibration.items import Item, without_tail
from tasks.generation import request_seed, verdict
from tasks.judging import STEP_BY_STEP, reasoned_turns
from tasks.schema import Message
from tasks.serving import Choice, ChoiceRequest, GenerationRequest, Sampling, TextGenerator
from tasks.store.identity import digest

CLAMP = (0.4, 0.6)
"""Between which the paper keeps labels that were reasoned about (section 4.1)."""
REASONING = Sampling(max_tokens=512)
"""How reasoning is drawn; its length as in RLAIF (2309.00267)."""
NO_SWAP = "its two options could not be told apart, so the other order could not be asked"


class Put(NamedTuple):
    """One way of putting a question, by the letters' place of its right option."""

    text: str
    answers: tuple[str, ...]
    correct: int


class Answer(NamedTuple):
    """What the model makes of one putting; `error` says why it makes nothing of it."""

    prob: float
    """Probability of the right option among the options."""
    right: float
    """1 where it is the likeliest, a share of that where it is so with others."""
    mass: float
    """Probability of all options' letters together among all tokens."""
    error: str | None = None


class Calibration(NamedTuple):
    """Kinds of label on the same questions, the first of them to be compared with."""

    forms: list[Form]
    items: list[Item]
    """The questions that all forms have a label of."""
    left_out: Counter[str]
    """The others, by reason."""
    mass: float
    """Median probability of the options' letters; far below 1 the model does not answer in the form it is asked."""

    @property
    def best(self) -> Form:
        """The kind of label that says most: of both orders where there is one."""
        return self.forms[2] if len(self.forms) > 2 else self.forms[-1]


Ask = Callable[[Sequence[Put]], list[Answer]]


def calibrate(items: Sequence[Item], generator: TextGenerator, reasoned: bool = False, seed: int = 0) -> Calibration:
    """Every kind of label that can be had of these questions.

    With more than two options anywhere only accuracy is told, in the order of the file.

    Raises: ValueError: no question has a label in every form.
    """
    asks: dict[str, Ask] = {"soft": lambda puts: weigh(puts, generator)}
    if reasoned:
        asks["reasoned"] = lambda puts: reason(puts, generator, seed)
    if any(len(item.letters) > 2 for item in items):
        return several_options(items, asks)
    return two_options(items, asks)


def two_options(items: Sequence[Item], asks: dict[str, Ask]) -> Calibration:
    """Hard and soft labels of one order, soft ones of both, reasoned ones of both, as they are and clamped."""
    usable = [item for item in items if item.swapped is not None]
    puts = [put(item, swapped) for item in usable for swapped in (False, True)]
    answers = {name: ask(puts) for name, ask in asks.items()}
    kept, left_out = answered(usable, answers, 2)
    left_out += Counter([NO_SWAP] * (len(items) - len(usable)))
    probs = {name: np.array([a.prob for a in kept[name]]).reshape(-1, 2) for name in asks}
    one, both = probs["soft"][:, 0], probs["soft"].mean(1)
    forms = [
        form_of("hard, one order", preference(one)),
        form_of("soft, one order", one),
        form_of("soft, both orders", both),
    ]
    if "reasoned" in asks:
        thought = probs["reasoned"].mean(1)
        forms += [form_of("reasoned", thought), form_of("reasoned, clamped", clamp(thought, *CLAMP))]
    good = [item for item, ok in zip(usable, good_items(answers, 2), strict=True) if ok]
    return checked(Calibration(forms, good, left_out, median_mass(kept)))


def several_options(items: Sequence[Item], asks: dict[str, Ask]) -> Calibration:
    """Accuracy only: which order to ask is one of many."""
    answers = {name: ask([put(item, swapped=False) for item in items]) for name, ask in asks.items()}
    kept, left_out = answered(items, answers, 1)
    names = {"soft": "likeliest letter", "reasoned": "likeliest letter after reasoning"}
    forms = [Form(names[name], right_of(kept[name]), None) for name in asks]
    good = [item for item, ok in zip(items, good_items(answers, 1), strict=True) if ok]
    return checked(Calibration(forms, good, left_out, median_mass(kept)))


def put(item: Item, swapped: bool) -> Put:
    """A question in one of its orders. Swapped, the right option wears the other letter."""
    answers = tuple(f"({letter}" for letter in item.letters)
    if not swapped:
        return Put(item.prompt, answers, item.correct)
    assert item.swapped is not None
    return Put(item.swapped, answers, 1 - item.correct)


def weigh(puts: Sequence[Put], generator: TextGenerator) -> list[Answer]:
    """The options' letters weighed right after the question."""
    return choose(puts, [ChoiceRequest([user(each.text)]) for each in puts], generator)


def reason(puts: Sequence[Put], generator: TextGenerator, seed: int) -> list[Answer]:
    """The letters weighed after the model has reasoned, in a second call."""
    texts = [without_tail(each.text) for each in puts]
    seeds = [request_seed(digest([seed, "calibrate", text])) for text in texts]
    requests = [GenerationRequest([user(t)], s, STEP_BY_STEP) for t, s in zip(texts, seeds, strict=True)]
    thoughts = generator.generate(requests, REASONING)
    ended = [verdict(thought, "reasoning") for thought in thoughts]
    good = [i for i, end in enumerate(ended) if end["status"] == "ok"]
    turns = [ChoiceRequest(reasoned_turns(texts[i], (thoughts[i].text or "").strip())) for i in good]
    answers = dict(zip(good, choose([puts[i] for i in good], turns, generator), strict=True))
    return [answers.get(i) or failed(ended[i]["reason"]) for i in range(len(puts))]


def choose(puts: Sequence[Put], requests: Sequence[ChoiceRequest], generator: TextGenerator) -> list[Answer]:
    """In order; questions with the same letters are asked together."""
    by_letters: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, each in enumerate(puts):
        by_letters[each.answers].append(i)
    found: dict[int, Answer] = {}
    for answers, rows in by_letters.items():
        choices = generator.choose([requests[i] for i in rows], answers)
        found |= {i: answer_of(choice, puts[i].correct) for i, choice in zip(rows, choices, strict=True)}
    return [found[i] for i in range(len(puts))]


def answer_of(choice: Choice, correct: int) -> Answer:
    if choice.logprobs is None:
        return failed(choice.error)
    logprobs = np.array(choice.logprobs, dtype=np.float64)
    weights = np.exp(logprobs - logprobs.max())
    if not np.isfinite(weights).all():
        return failed("the options' letters have no probability at all")
    likeliest = logprobs == logprobs.max()
    right = float(likeliest[correct]) / int(likeliest.sum())
    return Answer(float(weights[correct] / weights.sum()), right, float(np.exp(logprobs).sum()))


def failed(error: str | None) -> Answer:
    return Answer(0.0, 0.0, 0.0, error or "no answer")


def good_items(answers: dict[str, list[Answer]], num_orders: int) -> list[bool]:
    """Whether each question was answered in every form and order."""
    per_put = [all(a.error is None for a in given) for given in zip(*answers.values(), strict=True)]
    return [all(per_put[i : i + num_orders]) for i in range(0, len(per_put), num_orders)]


def answered(
    items: Sequence[Item], answers: dict[str, list[Answer]], num_orders: int
) -> tuple[dict[str, list[Answer]], Counter[str]]:
    """The answers to questions that have all of theirs, and the reasons of the others."""
    good = good_items(answers, num_orders)
    kept = {name: [a for i, a in enumerate(given) if good[i // num_orders]] for name, given in answers.items()}
    reasons: Counter[str] = Counter()
    for i in (i for i in range(len(items)) if not good[i]):
        own = [a for given in answers.values() for a in given[i * num_orders : (i + 1) * num_orders]]
        reasons[next(a.error for a in own if a.error)] += 1
    return kept, reasons


def right_of(answers: Sequence[Answer]) -> Array:
    return np.array([answer.right for answer in answers], dtype=np.float64)


def median_mass(kept: dict[str, list[Answer]]) -> float:
    masses = [answer.mass for answer in kept["soft"]]
    return median(masses) if masses else 0.0


def checked(calibration: Calibration) -> Calibration:
    if calibration.items:
        return calibration
    worst = calibration.left_out.most_common(1)[0][0]
    raise ValueError(f"calibrate: no question was answered in every form; most often: {worst}")


def user(content: str) -> Message:
    return Message(role="user", content=content)
