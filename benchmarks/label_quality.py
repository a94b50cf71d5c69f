"""Which kind of AI label agrees with the truth and means what it says, on held-out pairs of the micro world.

    .venv/bin/python -m benchmarks.label_quality --strong tasks/micro/model --weak DIR --jury DIR DIR DIR

A weak model and a jury are made by the model's own recipe (an hour and more on one core): early checkpoints by
`python -m tasks.micro.pretrain --output m/model --keep-every 200`, others by `--output m/one --seed 1 --steps 1200`.
docs/ai-feedback.md has the committed model as the strong one, step 800 as the weak one, seeds 1 and 2 (1,200 steps)
beside the strong one in the jury, and steps 600, 800 and 1,000 as the weak jury.

The truth is the world's own: which of two completions a principle prefers. Pairs that it holds equal are left out, and
so are the errands that the alignment stages use. Printed for the strong and for the weak feedback model: agreement, ECE
(15 bins of equal mass), Brier score, the ECE that chance alone gives on so many labels, and the same-position rate of
each kind of label; then the paired differences from hard labels of one order. Intervals are bootstraps over whole
errands, the same resamples for every kind.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.calibration.figures import Array, Form, clamp, form_of, preference, summarise
from tasks.calibration.labels import CLAMP
from tasks.generation import request_seed
from tasks.judging import ANSWERS, ORDERS, STEP_BY_STEP, judging_request, normalise, reasoned_turns, unswap
from tasks.micro.corpus import better_of, judgement, reasoned_judgement
from tasks.micro.mixture import random_response
from tasks.micro.principles import FAMILIES, Family
from tasks.micro.world import errands
from tasks.serving import (
    ChoiceRequest,
    GenerationRequest,
    Sampling,
    ServingConfig,
    TextGenerator,
    close_all,
    open_generator,
)
from tasks.store import resolve_external_model
from tasks.store.identity import digest

MEASURES = {"accuracy": "agreement", "ece": "ECE", "brier": "Brier"}


class Pair(NamedTuple):
    """Two completions of which one is better, and how a feedback model is asked for it in either order."""

    errand: str
    family: Family
    better: str
    """`(A)` or `(B)`, in the order `ab`."""
    texts: tuple[str, str]
    reasoned_texts: tuple[str, str]


class Kind(NamedTuple):
    """One kind of label: P(a is better) in each order, and the label that is made of it."""

    name: str
    orders: Array
    """(pairs, 2)"""
    label: Array
    """(pairs)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strong", type=Path, default=Path("tasks/micro/model"))
    parser.add_argument("--weak", type=Path, default=Path("tasks/micro/model"))
    parser.add_argument("--jury", type=Path, nargs="+", default=[Path("tasks/micro/model")] * 3)
    parser.add_argument("--weak-jury", type=Path, nargs="+", help="the jury beside the weak model; default: the same")
    parser.add_argument("--engine", choices=["vllm", "transformers"], default="vllm")
    parser.add_argument("--num", type=int, default=2400, help="decided pairs")
    parser.add_argument("--reasoning-tokens", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pairs = decided_pairs(options.num, options.seed)
    asker = Asker(pairs, ServingConfig(engine=options.engine), Sampling(max_tokens=options.reasoning_tokens))
    try:
        for title, folder, jury in (
            ("strong feedback model", options.strong, options.jury),
            ("weak feedback model", options.weak, options.weak_jury or options.jury),
        ):
            show(f"{title}: {folder}; jury: {', '.join(map(str, jury))}", pairs, kinds(asker, folder, jury))
    finally:
        close_all()


def decided_pairs(num: int, seed: int) -> list[Pair]:
    """Random held-out errands, families and completions, until so many pairs are decided."""
    rng, pool = random.Random(seed), [e for e in errands() if e.group != "alignment"]
    pairs: list[Pair] = []
    while len(pairs) < num:
        errand, family, key = rng.choice(pool), rng.choice(FAMILIES), rng.random()
        a, b = random_response(errand, family, rng), random_response(errand, family, rng)
        better = better_of(errand, family, a, b)
        if better is None:
            continue
        # the same key puts the same question in both orders and both forms
        shown: list[tuple[str, str]] = []
        for form in (judgement, reasoned_judgement):
            first, second = (form(errand, family, *two, random.Random(key)).messages[0] for two in ((a, b), (b, a)))
            shown.append((first.content, second.content))
        pairs.append(Pair(errand.name, family, better, *shown))
    return pairs


class Asker:
    """Asks each model once, however often its answers are used."""

    def __init__(self, pairs: Sequence[Pair], serving: ServingConfig, reasoning: Sampling) -> None:
        self.pairs, self.serving, self.reasoning = pairs, serving, reasoning
        self._known: dict[tuple[str, bool], Array] = {}

    def probs(self, folder: Path, reasoned: bool = False) -> Array:
        """P(a is better) by the model in the folder, (pairs, 2 orders)."""
        model = resolve_external_model(str(folder))
        name = (model.content_hash, reasoned)
        if name not in self._known:
            with open_generator(model, folder, self.serving) as generator:
                ask = self._reason if reasoned else self._weigh
                self._known[name] = ask(generator)
        return self._known[name]

    def _weigh(self, generator: TextGenerator) -> Array:
        return self._choose(generator, [judging_request(text) for pair in self.pairs for text in pair.texts])

    def _reason(self, generator: TextGenerator) -> Array:
        requests = [
            GenerationRequest(judging_request(text).messages, request_seed(digest([text, i])), STEP_BY_STEP)
            for i, pair in enumerate(self.pairs)
            for text in pair.reasoned_texts
        ]
        thoughts = generator.generate(requests, self.reasoning)
        turns = [
            ChoiceRequest(reasoned_turns(request.messages[-1].content, (thought.text or "").strip()))
            for request, thought in zip(requests, thoughts, strict=True)
        ]
        return self._choose(generator, turns)

    def _choose(self, generator: TextGenerator, requests: Sequence[ChoiceRequest]) -> Array:
        """Raises: SystemExit: a question has no answer; the table is about whole ones."""
        probs = []
        for i, choice in enumerate(generator.choose(requests, ANSWERS)):
            prob = normalise(*unswap(choice, ORDERS[i % 2]))
            if prob is None:
                raise SystemExit(f"label_quality: question {i} has no answer: {choice.error}")
            probs.append(prob)
        return np.array(probs).reshape(-1, 2)


def kinds(asker: Asker, folder: Path, jury: Sequence[Path]) -> list[Kind]:
    """Every kind of label. The first is what the others are compared with."""
    soft, thought = asker.probs(folder), asker.probs(folder, reasoned=True)
    members = np.mean([asker.probs(member) for member in jury], axis=0)
    return [
        Kind("hard, one order", soft, preference(soft[:, 0])),
        Kind("soft, one order", soft, soft[:, 0]),
        Kind("soft, both orders", soft, soft.mean(1)),
        Kind("reasoned, clamped", thought, clamp(thought.mean(1), *CLAMP)),
        Kind("reasoned, not clamped", thought, thought.mean(1)),
        Kind(f"jury of {len(jury)}, mean", members, members.mean(1)),
    ]


def right_prob(pairs: Sequence[Pair], label: Array) -> Array:
    """The label's probability of the completion that is better."""
    first = np.array([pair.better == "(A)" for pair in pairs])
    return np.where(first, label, 1 - label)


def form(pairs: Sequence[Pair], kind: Kind) -> Form:
    return form_of(kind.name, right_prob(pairs, kind.label))


def same_position(orders: Array) -> float:
    """Share of pairs of which both orders prefer the same position (the RLAIF paper's figure)."""
    sides = np.sign(orders - 0.5)  # 1: a, which stands first in order ab and second in order ba
    return float((sides[:, 0] * sides[:, 1] < 0).mean())


def show(title: str, pairs: Sequence[Pair], found: Sequence[Kind]) -> None:
    units = [pair.errand for pair in pairs]
    summaries = summarise([form(pairs, kind) for kind in found], units)
    print(f"\n{title}\n{len(pairs)} decided held-out pairs of {len(set(units))} errands")
    titles = "".join(f"{name:>24}" for name in MEASURES.values())
    print(f"{'label':23}{titles}{'by chance':>12}{'same position':>15}")
    for kind, summary in zip(found, summaries, strict=True):
        rest = f"{summary.error_by_chance:>12.3f}{same_position(kind.orders):>15.3f}"
        print(f"{kind.name:23}{cells(summary.figures)}{rest}")
    print(f"minus {found[0].name}, paired")
    for summary in summaries[1:]:
        print(f"{summary.name:23}{cells(summary.differences)}")
    show_families(pairs, found)


def cells(figures: dict[str, Any]) -> str:
    return "".join(f"{figures[name]!s:>24}" for name in MEASURES)


def show_families(pairs: Sequence[Pair], found: Sequence[Kind]) -> None:
    print("agreement by family     " + "".join(f"{family:>14}" for family in FAMILIES))
    for kind in found:
        right = preference(right_prob(pairs, kind.label))
        shares = [right[[pair.family == family for pair in pairs]].mean() for family in FAMILIES]
        print(f"{kind.name:24}" + "".join(f"{share:>14.3f}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
