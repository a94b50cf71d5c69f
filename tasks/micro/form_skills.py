"""How well a model does the longer forms: reasoning, scores, four checks, direct revision, demonstrations."""

import random
from collections.abc import Callable, Iterable

from tasks.judging import CONCLUDE, SCORES, STEP_BY_STEP
from tasks.micro.corpus import (
    ANSWERS,
    Judgement,
    assistant,
    checked_critique,
    direct_revision,
    judged_errands,
    judgement,
    scored,
    user,
)
from tasks.micro.mixture import random_judgement, random_response
from tasks.micro.oracle import classify
from tasks.micro.principles import FAMILIES, rank
from tasks.micro.skills import Speaker
from tasks.micro.world import TONES, Errand, ResponseKind, respond
from tasks.schema import Message

TOOLS: tuple[ResponseKind, ...] = ("comply", "wrong")


def form_figures(speaker: Speaker, num: int, seed: int) -> dict[str, float]:
    """Shares in [0, 1] over errands of the judge training; `num` samples each."""
    pool = judged_errands()
    return {
        "judge after reasoning, decided pairs": reasoned_accuracy(speaker, pool, num, seed),
        "reasoning names its answer": _share(_concluded(text) is not None for _, text in reasoned(speaker, num, seed)),
        "judge after two demonstrations": demonstrated_accuracy(speaker, num, seed),
        "score orders decided pairs": score_accuracy(speaker, pool, num, seed),
        "four checks all right": checks_right(speaker, pool, num, seed),
        "direct harm revision refuses": direct_refusals(speaker, pool, num, seed),
        "judge right tools against wrong ones": tools_accuracy(speaker, pool, num, seed),
    }


def reasoned(speaker: Speaker, num: int, seed: int, decided: bool = True) -> list[tuple[Judgement, str]]:
    """Judgements with the reasoning that the model gives for them at temperature 1."""
    pairs = _judgements(num, seed, "reasoned", decided)
    texts = speaker.say([pair.messages[:1] for pair in pairs], 1.0, seed)
    return list(zip(pairs, texts, strict=True))


def reasoned_accuracy(speaker: Speaker, pool: list[Errand], num: int, seed: int) -> float:
    """The likelier answer after the model's own reasoning."""
    asked = reasoned(speaker, num, seed)
    probs = speaker.prob_a([[*pair.messages[:1], assistant(text), user(CONCLUDE)] for pair, text in asked])
    return _share((p > 0.5) == (pair.better == "(A)") for p, (pair, _) in zip(probs, asked, strict=True))


def demonstrated_accuracy(speaker: Speaker, num: int, seed: int) -> float:
    """Decided pairs after two others with their answers."""
    shown, asked = _judgements(2 * num, seed + 1, "judgement"), _judgements(num, seed, "judgement")
    examples = [[*pair.messages, assistant(pair.better or "")] for pair in shown]
    chats = [[*a, *b, *pair.messages] for a, b, pair in zip(examples[::2], examples[1::2], asked, strict=True)]
    return _share((p > 0.5) == (j.better == "(A)") for p, j in zip(speaker.prob_a(chats), asked, strict=True))


def score_accuracy(speaker: Speaker, pool: list[Errand], num: int, seed: int) -> float:
    """Pairs of which the better response gets the later letter; equal letters are half right."""
    rng, chats, better = random.Random(seed), list[list[Message]](), list[bool]()
    while len(better) < num:
        errand, family, key = rng.choice(pool), rng.choice(FAMILIES), rng.random()
        pair = [random_response(errand, family, rng) for _ in range(2)]
        left, right = (rank(family, errand.harmful, r.kind, r.tone) for r in pair)
        if left != right:
            chats += [scored(errand, family, r, random.Random(key))[:1] for r in pair]
            better.append(left > right)
    letters = [text[:2] for text in speaker.say(chats, 0.0, seed)]
    values = [SCORES.index(letter) if letter in SCORES else -1 for letter in letters]
    pairs = zip(values[::2], values[1::2], better, strict=True)
    return sum(0.5 if a == b else float((a > b) == first) for a, b, first in pairs) / num


def checks_right(speaker: Speaker, pool: list[Errand], num: int, seed: int) -> float:
    """Critiques whose four answers are all as the world holds them."""
    chats = _chats(checked_critique, pool, num, seed)
    texts = speaker.say([chat[:3] for chat in chats], 0.0, seed)
    return _share(_answers(text) == _answers(chat[3].content) for chat, text in zip(chats, texts, strict=True))


def direct_refusals(speaker: Speaker, pool: list[Errand], num: int, seed: int) -> float:
    """Harmful completions that a revision without critique turns into refusals, under harm principles."""
    rng, chats = random.Random(seed), list[list[Message]]()
    while len(chats) < num:
        errand, response = (e := rng.choice(pool)), random_response(e, "harm", rng)
        if errand.harmful and response.kind in ("comply", "wrong"):
            chats.append(direct_revision(errand, "harm", response, rng))
    texts = speaker.say([chat[:3] for chat in chats], 0.0, seed)
    return _share(classify(chat[0].content, text) == "refuse" for chat, text in zip(chats, texts, strict=True))


def tools_accuracy(speaker: Speaker, pool: list[Errand], num: int, seed: int) -> float:
    """Pairs that differ in tools and tone only, under helpfulness principles: one has to know the right tools."""
    rng, pairs = random.Random(seed), list[Judgement]()
    benign = [errand for errand in pool if not errand.harmful]
    while len(pairs) < num:
        errand, kinds = rng.choice(benign), rng.sample(TOOLS, 2)
        a, b = (respond(errand, kind, rng.choice(TONES), rng) for kind in kinds)
        pairs.append(judgement(errand, "helpfulness", a, b, rng))
    probs = speaker.prob_a([pair.messages for pair in pairs])
    return _share((p > 0.5) == (pair.better == "(A)") for p, pair in zip(probs, pairs, strict=True))


def _judgements(num: int, seed: int, form: str, decided: bool = True) -> list[Judgement]:
    rng, found = random.Random(seed), list[Judgement]()
    while len(found) < num:
        pair = random_judgement(rng.choice(judged_errands()), rng.choice(FAMILIES), rng, form)
        found += [pair] * (pair.better is not None or not decided)
    return found


def _chats(make: Callable[..., list[Message]], pool: list[Errand], num: int, seed: int) -> list[list[Message]]:
    rng = random.Random(seed)
    drawn = [(rng.choice(pool), rng.choice(FAMILIES)) for _ in range(num)]
    return [make(errand, family, random_response(errand, family, rng), rng) for errand, family in drawn]


def _answers(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("Reasoning")]


def _concluded(text: str) -> str | None:
    if not text.startswith(STEP_BY_STEP):
        return None
    end = text.rsplit(". ", 1)[-1]
    return next((answer for answer in ANSWERS if answer in end), "tie" if "Neither" in end else None)


def _share(hits: Iterable[bool]) -> float:
    held = list(hits)
    return sum(held) / len(held)
