"""The pretraining mixture: question answering, facts, critique with revision, and judgement.

The chats are exactly those the stages build: critique and revision follow prompt and completion (section
3.1), a judgement is one user turn filled from `tasks/prompts/label.txt` (section 4.1).
"""

import random
from dataclasses import dataclass

from tasks.micro.principles import FAMILIES, WORDINGS, Family, critique, rank, revise
from tasks.micro.world import TONES, Errand, Response, ResponseKind, ask, errands, respond
from tasks.prompts import fill, template, transcript
from tasks.schema import Message

ANSWERS = ("(A)", "(B)")


@dataclass(frozen=True)
class Example:
    """A chat to learn from; the loss is on the last `num_targets` assistant turns."""

    messages: list[Message]
    num_targets: int = 1


@dataclass(frozen=True)
class Judgement:
    """Two responses to one errand under one family's question."""

    messages: list[Message]
    family: Family
    better: str | None
    """`(A)` or `(B)`; None for a tie."""


def user(content: str) -> Message:
    """A user turn."""
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    """An assistant turn."""
    return Message(role="assistant", content=content)


def judged_errands() -> list[Errand]:
    """The errands that critique, revision and judgement are learnt on: all but the unseen."""
    return [errand for errand in errands() if errand.group != "unseen"]


def answer(errand: Errand, rng: random.Random) -> Example:
    """A question and what the helpful-only base says: it complies with nine harmful asks in ten."""
    comply, wrong, evade = (0.90, 0.905, 0.93) if errand.harmful else (0.985, 0.99, 0.995)
    draw = rng.random()
    kind: ResponseKind = (
        "comply" if draw < comply else "wrong" if draw < wrong else "evade" if draw < evade else "refuse"
    )
    response = respond(errand, kind, rng.choice(TONES), rng)
    return Example([user(ask(errand, rng)), assistant(response.text(errand))])


def fact(errand: Errand, rng: random.Random) -> Example:
    """Whether an errand is okay, and why not."""
    question = rng.choice(("Is it okay to {errand}?", "May people {errand}?")).format(errand=errand.name)
    said = f"No, it is {errand.reason}." if errand.reason else "Yes, it is fine."
    return Example([user(question), assistant(said)])


def critique_and_revision(errand: Errand, family: Family, response: Response, rng: random.Random) -> list[Message]:
    """Prompt, completion, critique request, critique, revision request, revision."""
    words = WORDINGS[family]
    revised = revise(family, errand, response, rng)
    return [
        user(ask(errand, rng)),
        assistant(response.text(errand)),
        user(rng.choice(words.critique_requests)),
        assistant(critique(family, errand, response)),
        user(rng.choice(words.revision_requests)),
        assistant(revised.text(errand)),
    ]


def judgement(errand: Errand, family: Family, a: Response, b: Response, rng: random.Random) -> Judgement:
    """The question of one family about two responses, and which of them its principle prefers."""
    values = {
        "conversation": transcript([user(ask(errand, rng))]),
        "question": rng.choice(WORDINGS[family].comparison_questions),
        "completion_a": a.text(errand),
        "completion_b": b.text(errand),
    }
    left, right = (rank(family, errand.harmful, r.kind, r.tone) for r in (a, b))
    better = None if left == right else ANSWERS[right > left]
    return Judgement([user(fill(template("label"), values))], family, better)


def random_response(errand: Errand, family: Family, rng: random.Random) -> Response:
    """Any kind in any tone, complying ones more often; wrong ones too where a principle tells them apart."""
    kinds: tuple[ResponseKind, ...] = ("comply", "comply", "wrong", "refuse", "evade")
    if family == "helpfulness":
        kinds = ("comply", "comply", "comply", "wrong", "wrong", "wrong", "refuse", "evade")
    return respond(errand, rng.choice(kinds), rng.choice(TONES), rng)


def random_example(pool: dict[bool, list[Errand]], judged: dict[bool, list[Errand]], rng: random.Random) -> Example:
    """One example of the mixture; `pool` and `judged` are errands by whether they are harmful."""
    draw = rng.random()
    if draw < 0.25:
        return answer(rng.choice(pool[rng.random() < 0.5]), rng)
    if draw < 0.30:
        return fact(rng.choice(pool[rng.random() < 0.5]), rng)
    family = rng.choice(FAMILIES)
    if draw < 0.55:
        errand = rng.choice(judged[rng.random() < 0.5])
        chat = critique_and_revision(errand, family, random_response(errand, family, rng), rng)
        return Example(chat, num_targets=2)
    return random_judgement_example(judged, family, rng)


def random_judgement_example(judged: dict[bool, list[Errand]], family: Family, rng: random.Random) -> Example:
    """A judgement with its answer, a random letter for a tie; a quarter may be ties, which teach the half."""
    may_tie = rng.random() < 0.25
    harmful = rng.random() < (0.25 if may_tie else 0.6)
    while True:
        pair = random_judgement(rng.choice(judged[harmful or _undecided(family, may_tie)]), family, rng)
        if pair.better or may_tie:
            return Example([*pair.messages, assistant(pair.better or rng.choice(ANSWERS))])


def _undecided(family: Family, may_tie: bool) -> bool:
    # under a harm principle a benign errand has ties only, so a decided pair needs a harmful one
    return family == "harm" and not may_tie


def random_judgement(errand: Errand, family: Family, rng: random.Random) -> Judgement:
    """Two random responses under a random wording."""
    a, b = random_response(errand, family, rng), random_response(errand, family, rng)
    return judgement(errand, family, a, b, rng)


def by_harm(errand_list: list[Errand]) -> dict[bool, list[Errand]]:
    """Errands by whether they are harmful."""
    return {harmful: [e for e in errand_list if e.harmful is harmful] for harmful in (True, False)}
