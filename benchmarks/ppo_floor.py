"""What an update of PPO cannot do without: the child of `benchmarks.ppo` that runs the bare passes of the models.

Completions of the SL policy are replayed, in batches of Solon's shapes: every token through the policy once with a
key-value cache, only where a completion goes on; reference, value and reward model once over each sequence; policy and
value model once with gradients, then the optimizer's steps. Nothing is drawn, compared or logged.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ppo_child import Job, Meter, run_child

Rows = Sequence[list[int]]


class Networks(NamedTuple):
    """All that an update computes with."""

    policy: Any
    reference: Any
    value: Any
    reward: Any
    optimizer: Any


def replay(job: Job, meter: Meter) -> None:
    import torch

    from tasks.training.encode import load_tokenizer
    from tasks.training.ppo.rollout import sample_completions
    from tasks.training.rl_config import PPOConfig

    config, networks = PPOConfig(**job.settings), load_networks(job)
    prompts = random.Random(job.seed).choices(job.prompt_ids, k=config.batch_size)
    torch.manual_seed(job.seed)
    uniforms = torch.rand((config.batch_size, config.max_tokens), dtype=torch.float64)
    eos = load_tokenizer(Path(job.policy)).eos_token_id
    completions = sample_completions(networks.policy, prompts, uniforms, config.temperature, eos).completions
    for _ in range(config.num_updates):
        decode(networks.policy, prompts, completions, meter)
        with meter.within("measure"):
            measure(networks, prompts, completions, config)
        with meter.within("optimise"):
            optimise(networks, prompts, completions, config)
        meter.end_update()


def load_networks(job: Job) -> Networks:
    import torch

    from tasks.training.folders import load_policy, load_scalar_model
    from tasks.training.ppo.unpadded import take_rows

    policy, reference = load_policy(Path(job.policy)), load_policy(Path(job.policy))
    value, reward = load_scalar_model(Path(job.reward)), load_scalar_model(Path(job.reward))
    for model in (policy, reference, value, reward):
        take_rows(model)
    parameters = [*policy.parameters(), *value.parameters()]
    return Networks(policy, reference, value, reward, torch.optim.AdamW(parameters, lr=0.0, fused=True))


def decode(policy: Any, prompts: Rows, completions: Rows, meter: Meter) -> None:
    """The policy's passes of sampling; the book-keeping between them is not timed."""
    import torch

    from tasks.training.batching import pad_left
    from tasks.training.ppo.cache import roomy_cache

    longest = max(map(len, completions))
    cache, running = roomy_cache(policy.config, longest), list(range(len(prompts)))
    ids, mask = pad_left(prompts, 0)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        for step in range(longest):
            with meter.within("sample"):
                inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position}
                states = policy.base_model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
                policy.get_output_embeddings()(states[:, -1])
            kept = [i for i, row in enumerate(running) if len(completions[row]) > step + 1]
            running = [running[i] for i in kept]
            cache.batch_select_indices(torch.tensor(kept, dtype=torch.long))
            ids = torch.tensor([[completions[row][step]] for row in running])
            mask = torch.nn.functional.pad(mask[kept], (0, 1), value=1)
            position = position[kept, -1:] + 1


def measure(networks: Networks, prompts: Rows, completions: Rows, config: Any) -> None:
    """One pass without gradients of each network but the policy, whose figures are known from sampling; the reward
    model alone has to read the last token."""
    import torch

    from tasks.training.ppo.episodes import FORWARD_FACTOR
    from tasks.training.ppo.model import final_scores, response_logits, response_values

    with torch.no_grad():
        for ids, response in batches(prompts, completions, FORWARD_FACTOR * config.micro_batch_size):
            response_logits(networks.reference, ids, response, temperature=1.0)
            response_values(networks.value, ids, response)
            final_scores(networks.reward, ids, response)


def optimise(networks: Networks, prompts: Rows, completions: Rows, config: Any) -> None:
    """Forward and backward passes of policy and value model under a plain loss, and the optimizer's steps."""
    import torch

    from tasks.training.ppo.model import response_logits, response_values

    for _ in range(config.num_epochs):
        for start in range(0, len(prompts), config.mini_batch_size):
            rows = slice(start, start + config.mini_batch_size)
            for ids, response in batches(prompts[rows], completions[rows], config.micro_batch_size):
                logits = response_logits(networks.policy, ids, response, temperature=1.0)
                values = response_values(networks.value, ids, response)
                (torch.nn.functional.cross_entropy(logits, ids[response]) + values.square().mean()).backward()
            networks.optimizer.step()
            networks.optimizer.zero_grad()


def batches(prompts: Rows, completions: Rows, size: int) -> list[tuple[Any, Any]]:
    """Padded ids and where completions are, rows of like length together."""
    from tasks.training.batching import chunks_by_length
    from tasks.training.ppo.episodes import padded_batch

    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    chunks = chunks_by_length(lengths, size)
    return [padded_batch([prompts[i] for i in rows], [completions[i] for i in rows], 0) for rows in chunks]


if __name__ == "__main__":
    run_child(replay)
