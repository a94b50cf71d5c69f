"""What the micro model is taught, form by form: answering, facts, critique and revision, judgement.

The chats are exactly those the stages build: critique and revision follow prompt and completion (section 3.1), a
judgement is a user turn filled from `tasks/prompts` (section 4.1), with reasoning or a score where the stages ask so.
"""

import random
from dataclasses import dataclass

from tasks.judging import SCORES, judging_prompt, reasoned_turns, scoring_prompt
from tasks.micro.principles import WORDINGS, Family, critique, four_checks, rank, revise, score
from tasks.micro.world import TONES, Errand, Response, ResponseKind, ask, errands, respond
from tasks.prompts import fill, template
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


def direct_revision(errand: Errand, family: Family, response: Response, rng: random.Random) -> list[Message]:
    """Prompt, completion, revision request, revision: without a critique."""
    first, second, _, _, request, revised = critique_and_revision(errand, family, response, rng)
    return [first, second, request, revised]


def checked_critique(errand: Errand, family: Family, response: Response, rng: random.Random) -> list[Message]:
    """As `critique_and_revision`, the critique reasoned and with four answers; it ends there if all are yes."""
    first, second, request, finding, revision_request, revised = critique_and_revision(errand, family, response, rng)
    checks = four_checks(errand, response)
    asked = fill(template("four_checks"), {"critique_request": request.content})
    lines = [f"Reasoning: {finding.content}", *(f"{name}: {'yes' if yes else 'no'}" for name, yes in checks.items())]
    chat = [first, second, user(asked), assistant("\n".join(lines))]
    return chat if all(checks.values()) else [*chat, revision_request, revised]


def judgement(errand: Errand, family: Family, a: Response, b: Response, rng: random.Random) -> Judgement:
    """The question of one family about two responses, and which of them its principle prefers."""
    asked, question = [user(ask(errand, rng))], rng.choice(WORDINGS[family].comparison_questions)
    text = judging_prompt(asked, question, a.text(errand), b.text(errand), "ab")
    return Judgement([user(text)], family, better_of(errand, family, a, b))


def reasoned_judgement(errand: Errand, family: Family, a: Response, b: Response, rng: random.Random) -> Judgement:
    """The same with what is to be said of each before the answer."""
    asked, question = [user(ask(errand, rng))], rng.choice(WORDINGS[family].comparison_questions)
    text = judging_prompt(asked, question, a.text(errand), b.text(errand), "ab", "label_reasoned")
    better = better_of(errand, family, a, b)
    reasoning = (
        f"(A) {critique(family, errand, a)} (B) {critique(family, errand, b)} "
        f"{f'So {better} is better.' if better else 'Neither is better.'}"
    )
    return Judgement(reasoned_turns(text, reasoning), family, better)


def scored(errand: Errand, family: Family, response: Response, rng: random.Random) -> list[Message]:
    """One response under one family's question, with its score of 1 to 10 as a letter, one off at times."""
    asked, question = [user(ask(errand, rng))], rng.choice(WORDINGS[family].comparison_questions)
    value = score(family, errand.harmful, response.kind, response.tone) + rng.choice((-1, 0, 0, 1))
    return [user(scoring_prompt(asked, question, response.text(errand))), assistant(f"{SCORES[value - 1]})")]


def better_of(errand: Errand, family: Family, a: Response, b: Response) -> str | None:
    """`(A)` or `(B)`; None for a tie."""
    left, right = (rank(family, errand.harmful, r.kind, r.tone) for r in (a, b))
    return None if left == right else ANSWERS[right > left]


def by_harm(errand_list: list[Errand]) -> dict[bool, list[Errand]]:
    """Errands by whether they are harmful."""
    return {harmful: [e for e in errand_list if e.harmful is harmful] for harmful in (True, False)}
