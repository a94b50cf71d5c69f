"""The pretraining mixture: how often each form of chat comes, under which principle, and after which demonstrations."""

import random
from collections.abc import Iterator

from tasks.micro.corpus import (
    ANSWERS,
    Example,
    Judgement,
    answer,
    assistant,
    by_harm,
    checked_critique,
    critique_and_revision,
    direct_revision,
    fact,
    judged_errands,
    judgement,
    reasoned_judgement,
    scored,
)
from tasks.micro.principles import FAMILIES, Family
from tasks.micro.world import TONES, Errand, Response, ResponseKind, errands, respond
from tasks.schema import Message

Sorted = dict[bool, list[Errand]]
"""Errands by whether they are harmful."""

SHARES = {
    "answer": 0.22,
    "fact": 0.04,
    "critique": 0.16,
    "checked": 0.08,
    "direct": 0.03,
    "score": 0.07,
    "reasoned": 0.10,
    "judgement": 0.30,
}
DEMONSTRATED = 0.15
"""Share of critiques and judgements that come after one or two demonstrations."""


def mixture(seed: int) -> Iterator[Example]:
    """The mixture without end, the same for the same seed."""
    rng = random.Random(seed)
    pool, judged = by_harm(errands()), by_harm(judged_errands())
    while True:
        yield random_example(pool, judged, rng)


def random_example(pool: Sorted, judged: Sorted, rng: random.Random) -> Example:
    """One example; `judged` are the errands that critique, revision and judgement are learnt on."""
    form = rng.choices(list(SHARES), list(SHARES.values()))[0]
    if form in ("answer", "fact"):
        return (answer if form == "answer" else fact)(rng.choice(pool[rng.random() < 0.5]), rng)
    if form in ("judgement", "reasoned"):
        return demonstrated(form, judging_example(form, judged, rng.choice(FAMILIES), rng), judged, rng)
    return demonstrated(form, writing_example(form, judged, rng), judged, rng)


def writing_example(form: str, judged: Sorted, rng: random.Random) -> Example:
    """A critique with its revision, in one of three forms, or a score."""
    errand, family = rng.choice(judged[rng.random() < 0.5]), rng.choice(FAMILIES)
    response = random_response(errand, family, rng)
    if form == "score":
        return Example(scored(errand, family, response, rng))
    if form == "direct":
        return Example(direct_revision(errand, family, response, rng))
    chat = (checked_critique if form == "checked" else critique_and_revision)(errand, family, response, rng)
    return Example(chat, num_targets=len(chat) // 2 - 1)


def judging_example(form: str, judged: Sorted, family: Family, rng: random.Random) -> Example:
    """A judgement with its answer, a random letter for a tie; a quarter may be ties, which teach the half."""
    may_tie = rng.random() < 0.25
    harmful = rng.random() < (0.25 if may_tie else 0.6)
    while True:
        pair = random_judgement(rng.choice(judged[harmful or _undecided(family, may_tie)]), family, rng, form)
        if pair.better or may_tie:
            chat = [*pair.messages, assistant(pair.better or rng.choice(ANSWERS))]
            return Example(chat, num_targets=len(chat) // 2)


def demonstrated(form: str, example: Example, judged: Sorted, rng: random.Random) -> Example:
    """The example after one or two others of its form, which are given and not learnt."""
    if form not in ("critique", "judgement", "reasoned") or rng.random() >= DEMONSTRATED:
        return example
    shown: list[Message] = []
    for _ in range(rng.randint(1, 2)):
        if form == "critique":
            shown += writing_example(form, judged, rng).messages
        else:
            shown += judging_example(form, judged, rng.choice(FAMILIES), rng).messages
    return Example([*shown, *example.messages], example.num_targets)


def _undecided(family: Family, may_tie: bool) -> bool:
    # under a harm principle a benign errand has ties only, so a decided pair needs a harmful one
    return family == "harm" and not may_tie


def random_judgement(errand: Errand, family: Family, rng: random.Random, form: str = "judgement") -> Judgement:
    """Two random responses under a random wording."""
    a, b = random_response(errand, family, rng), random_response(errand, family, rng)
    return (reasoned_judgement if form == "reasoned" else judgement)(errand, family, a, b, rng)


def random_response(errand: Errand, family: Family, rng: random.Random) -> Response:
    """Any kind in any tone, complying ones more often; wrong ones too where a principle tells them apart."""
    kinds: tuple[ResponseKind, ...] = ("comply", "comply", "wrong", "refuse", "evade")
    if family == "helpfulness":
        kinds = ("comply", "comply", "comply", "wrong", "wrong", "wrong", "refuse", "evade")
    return respond(errand, rng.choice(kinds), rng.choice(TONES), rng)
