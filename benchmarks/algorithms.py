"""PPO, RLOO, GRPO and DPO on the micro world, from the same SL policy, preferences and reward model: one table.

    .venv/bin/python -m benchmarks.algorithms --seeds 0 1 2

Every algorithm is the stage `rl` with the micro preset's settings. Before it stands a whole run of each seed, and what
the store has already is reused, so that a second call only prints. Rates are the oracle's on held-out prompts, with
95 % intervals by bootstrap over errands, all seeds together. KL is the mean of log policy - log SL policy over the
tokens of a completion that the policy samples on a held-out prompt, in nats, the same prompts and random numbers for
all. Seconds are those of the training process, start and loading included, and its spread is that of the seeds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.pooled import pooled
from flows.cli import run_align
from flows.config import AlignConfig, load_config
from flows.reinforcement import learner
from flows.server import apply_settings, prefect_server
from tasks.bootstrap import Interval, bootstrap_mean
from tasks.judge import JudgeStage
from tasks.prompt_rows import read_prompts
from tasks.reward import HeldOutRewardStage
from tasks.sample import SampleStage
from tasks.schema import Judgement, Message, ModelRef
from tasks.serving import close_all
from tasks.stage import Session, Stage
from tasks.store import Store, resolve_external_model
from tasks.store.identity import table_to_rows
from tasks.training.rl_config import Algorithm, DPOConfig, GroupConfig, PPOConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALGORITHMS: tuple[Algorithm, ...] = ("ppo", "rloo", "grpo", "dpo")
HEAD = ("policy", "harmful compliance", "benign helpfulness", "KL, nats", "seconds", "optimizer steps", "completions")


class Cost(NamedTuple):
    """What a training took."""

    seconds: float
    num_steps: int
    num_completions: int
    """Sampled, those that only measured the policy among them."""


class SeedRun(NamedTuple):
    """One seed: what became of every policy, and what it cost."""

    judgements: list[Judgement]
    kl: dict[str, list[float]]
    """By policy, of each held-out prompt."""
    units: list[str]
    """The errand of each held-out prompt."""
    costs: dict[str, Cost]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--store", default=".solon/store")
    parser.add_argument("--set", action="append", default=[], help="a setting over the micro preset, a.b=value")
    arguments = parser.parse_args()
    apply_settings()
    runs = []
    with prefect_server():
        for seed in arguments.seeds:
            given = [f"run.seed={seed}", f"run.store={arguments.store}", *arguments.set]
            runs.append(run_seed(load_config(["micro"], None, given)))
    print(f"\nseeds: {', '.join(map(str, arguments.seeds))}\n\n{markdown(runs)}")


def run_seed(config: AlignConfig) -> SeedRun:
    """A whole run with PPO, and the other algorithms from its SL policy, preferences and reward model."""
    result = run_align(with_algorithm(config, "ppo"))
    store = Store.open(result.store)
    refs: dict[str, Any] = {o.stage: store.manifest(o.dataset, o.version).ref() for o in result.stages}
    session = Session(store)

    def made(stage: Stage) -> Any:
        return stage.result(store) or stage.make(session)

    inputs = [refs[name] for name in ("prompts", "preferences", "sft", "reward")]
    held_out_reward = refs.get(HeldOutRewardStage.stage)
    policies: dict[str, ModelRef] = {"sl": refs["sft"]}
    try:
        for name in ALGORITHMS:
            policies[name] = made(learner(with_algorithm(config, name), *inputs, held_out_reward))
        judgements = judge(config, refs, policies, made)
    finally:
        close_all()
    prompts = [row for row in read_prompts(store, refs["prompts"], "held_out") if row.status == "ok"]
    units = {row.prompt_id: row.unit for row in table_to_rows(store.read(judgements), Judgement)}
    folders = {name: store.fetch_model(policy) for name, policy in policies.items()}
    tokens = config.sample.sampling.max_tokens
    return SeedRun(
        judgements=table_to_rows(store.read(judgements), Judgement),
        kl={
            name: kl_from(folders["sl"], folder, [row.messages for row in prompts], tokens)
            for name, folder in folders.items()
        },
        units=[units[row.prompt_id] for row in prompts],
        costs={name: cost_of(store, policies[name], with_algorithm(config, name)) for name in ALGORITHMS},
    )


def with_algorithm(config: AlignConfig, algorithm: Algorithm) -> AlignConfig:
    return config.model_copy(update={"rl": config.rl.model_copy(update={"algorithm": algorithm})})


def judge(config: AlignConfig, refs: dict[str, Any], policies: dict[str, ModelRef], made: Any) -> Any:
    samples = {
        name: made(SampleStage(run=config.run, prompts=refs["prompts"], policy=policy, config=config.sample))
        for name, policy in policies.items()
    }
    return made(
        JudgeStage(
            run=config.run,
            prompts=refs["prompts"],
            samples=samples,
            constitution=refs["constitution"],
            feedback=resolve_external_model(config.models.feedback),
            config=config.judge,
        )
    )


def kl_from(sl: Path, policy: Path, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[float]:
    """log policy - log SL policy of one completion a prompt, sampled from the policy at temperature 1 (k1)."""
    import torch

    from tasks.training.encode import encode_prompt, load_tokenizer
    from tasks.training.folders import load_policy
    from tasks.training.ppo.rollout import sample_completions

    tokenizer, model = load_tokenizer(policy), load_policy(policy).eval()
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    shape = (len(ids), max_tokens)
    uniforms = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    completions = sample_completions(model, ids, uniforms, 1.0, tokenizer.eos_token_id).completions
    own = logprob_sums(model, ids, completions)
    theirs = logprob_sums(load_policy(sl).eval(), ids, completions)
    return [a - b for a, b in zip(own, theirs, strict=True)]


def logprob_sums(
    model: "PreTrainedModel", prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[float]:
    """The log-probability of each completion after its prompt, in order."""
    import torch

    from tasks.training.batching import chunks_by_length
    from tasks.training.ppo.episodes import padded_batch

    sums = torch.zeros(len(prompts))
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    for rows in chunks_by_length(lengths, 64):
        ids, response = padded_batch([prompts[i] for i in rows], [completions[i] for i in rows], pad=0)
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        tokens = logprobs.gather(2, ids[:, 1:, None]).squeeze(2)
        sums[rows] = (tokens * response[:, 1:]).sum(1)
    return sums.tolist()


def cost_of(store: Store, policy: ModelRef, config: AlignConfig) -> Cost:
    manifest = store.manifest(policy.model, policy.version)
    final, trainer = manifest.metrics["final"], config.rl.trainer
    seconds = manifest.cost["seconds"]
    match trainer:
        case PPOConfig():
            per_update = trainer.batch_size // trainer.mini_batch_size * trainer.num_epochs
            measured = len(final["evaluations"]) * final["num_eval_prompts"]
            return Cost(
                seconds, final["num_updates"] * per_update, final["num_updates"] * trainer.batch_size + measured
            )
        case GroupConfig():
            return Cost(seconds, final["num_steps"], final["num_completions"])
        case DPOConfig():
            return Cost(seconds, final["num_steps"], 0)


def markdown(runs: Sequence[SeedRun]) -> str:
    """A line a policy, all seeds together."""
    judgements = [row for run in runs for row in run.judgements]
    units = [unit for run in runs for unit in run.units]
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    for name in ("sl", *ALGORITHMS):
        rates = [
            rate(pooled(judgements, measure, name, "all")) for measure in ("harmful_compliance", "benign_helpfulness")
        ]
        kl = bootstrap_mean([value for run in runs for value in run.kl[name]], units)
        cells = [name.upper(), *rates, f"{kl.mean:.2f} [{kl.low:.2f}, {kl.high:.2f}]"]
        cells += spent([run.costs[name] for run in runs]) if name in ALGORITHMS else ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rate(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def spent(costs: Sequence[Cost]) -> list[str]:
    """Seconds from the fastest seed to the slowest, and what is counted, which a stop rule may make differ."""
    return [span([f"{cost.seconds:.0f}" for cost in sorted(costs)])] + [
        span([f"{count:,}" for count in sorted(counts)])
        for counts in ([cost.num_steps for cost in costs], [cost.num_completions for cost in costs])
    ]


def span(ordered: Sequence[str]) -> str:
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


if __name__ == "__main__":
    main()
