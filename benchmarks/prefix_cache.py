"""What shared demonstrations save a vLLM server: hit rate of its prefix cache over labels of the micro world.

    .venv/bin/python -m benchmarks.prefix_cache [--comparisons 400]

The labels of one constitution with demonstrations are asked three times, each of a server of its own: selections shared
by rows (`label.demonstrations.num_variants`, the default), one of its own for each comparison (0, the paper's way), and
shared ones behind the question instead of before it, the layout that Solon does not use. Printed: prompt tokens, tokens
that the cache answered by the server's own counters, and the seconds of all requests. Solon turns the cache off on a
CPU, since it moves log-probabilities in their last bits; here it is on, as it is on a GPU.
"""

import argparse
import random
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from constitutions import load_constitution
from tasks.demonstrations import Before, DemonstrationsConfig, before_comparison
from tasks.judging import ANSWERS, ORDERS, judging_prompt, judging_request
from tasks.micro.mixture import random_response
from tasks.micro.world import ask, errands
from tasks.schema import Message
from tasks.serving import ChoiceRequest, ServingConfig
from tasks.serving.vllm_engine import VLLMGenerator, start

MODEL = Path("tasks/micro/model")
CONSTITUTION = "constitutions/micro-full.yaml"
Layout = Callable[[list[Message], str], ChoiceRequest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=400)
    parser.add_argument("--block-tokens", type=int, default=32, help="tokens of a cache block; whole blocks are shared")
    parser.add_argument("--max-tokens", type=int, default=2048, help="context of the server")
    options = parser.parse_args()
    texts = questions(options.comparisons)
    default = DemonstrationsConfig()
    print(f"{len(texts)} requests, two a comparison; block of {options.block_tokens} tokens")
    baseline = None
    for name, variants, layout in (
        (f"first, {default.num_variants} shared selections", default.num_variants, before_question),
        ("first, a selection for each comparison", 0, before_question),
        (f"after the question, {default.num_variants} shared selections", default.num_variants, behind_question),
    ):
        requests = requests_of(texts, before(variants), layout)
        baseline = measure(name, requests, options.block_tokens, options.max_tokens, baseline)


def questions(num_comparisons: int) -> list[tuple[str, str]]:
    """(comparison id, question text) in both orders."""
    rng, pool = random.Random(0), errands()
    principles = load_constitution(CONSTITUTION).comparison_principles()
    found = []
    for number in range(num_comparisons):
        errand = rng.choice(pool)
        a, b = (random_response(errand, "harm", rng).text(errand) for _ in range(2))
        conversation = [Message(role="user", content=ask(errand, rng))]
        question = rng.choice(principles).comparison_question or ""
        found += [(f"{number}/0", judging_prompt(conversation, question, a, b, order)) for order in ORDERS]
    return found


def before(num_variants: int) -> Before:
    constitution = load_constitution(CONSTITUTION)
    config = DemonstrationsConfig(num_variants=num_variants)
    shown, principles = constitution.comparison_demonstrations, constitution.comparison_principles()
    return before_comparison(shown, principles, config, seed=0)


def before_question(turns: list[Message], text: str) -> ChoiceRequest:
    return judging_request(text, turns)


def behind_question(turns: list[Message], text: str) -> ChoiceRequest:
    """The question first, then what it should be answered like, then the turn that asks for the answer."""
    return ChoiceRequest(
        [
            Message(role="user", content=text),
            Message(role="assistant", content="Show me examples."),
            *turns,
            Message(role="user", content="Answer the first question."),
        ]
    )


def requests_of(texts: list[tuple[str, str]], before: Before, layout: Layout) -> list[ChoiceRequest]:
    return [layout(before("label", comparison), text) for comparison, text in texts]


def measure(name: str, requests: list[ChoiceRequest], block: int, max_tokens: int, baseline: float | None) -> float:
    """Ask them all of a fresh server and print what its counters say; the seconds of the first one are the baseline."""
    config = ServingConfig(
        dtype="float32",
        max_model_tokens=max_tokens,
        extra_arguments=("--enable-prefix-caching", f"--block-size={block}"),
    )
    generator = start(MODEL, config)
    try:
        generator.choose(requests[:1], ANSWERS)  # the first request of a server is slow
        before, started = counters(generator), time.monotonic()
        choices = generator.choose(requests, ANSWERS)
        seconds, after = time.monotonic() - started, counters(generator)
    finally:
        generator.stop()
    failed = [choice.error for choice in choices if choice.error]
    if failed:
        raise SystemExit(f"{name}: {len(failed)} of {len(choices)} requests failed, first: {failed[0]}")
    queries, hits = (after[key] - before[key] for key in ("queries", "hits"))
    longest = max(choice.num_prompt_tokens for choice in choices)
    against = "" if baseline is None else f", {seconds / baseline:.2f} of the first"
    print(
        f"{name}: prompts of up to {longest} tokens, {queries:.0f} tokens asked, {hits:.0f} from the cache "
        f"({hits / queries:.1%}), {seconds:.1f} s{against}",
        flush=True,
    )
    return baseline or seconds


def counters(generator: VLLMGenerator) -> dict[str, float]:
    """The server's own counts of prompt tokens looked up in its prefix cache and found there."""
    with urllib.request.urlopen(f"{generator.server.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for name in ("queries", "hits"):
        values = [float(line.split()[-1]) for line in lines if line.startswith(f"vllm:prefix_cache_{name}_total")]
        if not values:
            raise SystemExit(f"the server has no counter vllm:prefix_cache_{name}_total; vLLM 0.32 is needed")
        found[name] = sum(values)
    return found


if __name__ == "__main__":
    main()
