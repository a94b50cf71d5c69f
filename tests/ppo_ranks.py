"""What `test_training_ppo_ranks` has done by two processes: `torchrun ... -m tests.ppo_ranks FOLDER`.

The same functions run in the test's own process, alone, for comparison. Each process leaves what it came to in
`FOLDER/rank-N.safetensors` and `rank-N.json`.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tasks.schema import Message
from tasks.training.encode import encode_prompt
from tasks.training.folders import load_policy, load_scalar_model, save_model, write_json
from tasks.training.ppo.episodes import collect_episodes, load_models
from tasks.training.ppo.losses import whiten
from tasks.training.ppo.rollout import Samples
from tasks.training.ppo.trainer import train_ppo
from tasks.training.ppo.update import make_optimizer, optimise
from tasks.training.ranks import ALONE, Ranks
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import Supervision
from tests.tiny_model import make_tiny_model

CONFIG = PPOConfig(
    num_updates=4,
    batch_size=8,
    mini_batch_size=4,
    micro_batch_size=2,
    num_epochs=2,
    learning_rate=1e-3,
    value_learning_rate=1e-3,
    kl_coef=0.1,
    max_tokens=6,
    checkpoint_every=2,
    eval_every=2,
    eval_prompts=1,  # fewer than there are processes
)
PROMPTS = [[Message(role="user", content="go" * (1 + i % 3) + str(i))] for i in range(12)]
EOS = 4
STORED = [[30 + i, *range(40, 40 + (5 if i % 2 else i // 2)), EOS][:6] for i in range(8)]
"""Completions of 2 to 6 tokens: the second process, which has every other row, has far more of them."""

Tensors = dict[str, torch.Tensor]


def make_models(root: Path) -> tuple[Path, Path]:
    """A policy that ends a completion after about every fourth token, and a reward model at random."""
    base = make_tiny_model(root / "base")
    torch.manual_seed(1)
    policy = load_policy(base)
    with torch.no_grad():
        policy.lm_head.weight[EOS] = 1.5 * torch.randn(policy.config.hidden_size)
    save_model(policy, base, root / "policy", "float32")
    save_model(load_scalar_model(base), base, root / "reward", "float32")
    write_json(root / "reward" / "reward_scale.json", {"mean": 0.0, "std": 0.1})
    return root / "policy", root / "reward"


def stored_rollouts(policy, prompts, uniforms, temperature, eos):  # type: ignore[no-untyped-def]
    """A sampler that returns what was sampled once: a row's first number says which."""
    return Samples([STORED[int(row)] for row in uniforms[:, 0]])


def one_update(
    policy: Path, reward: Path, ranks: Ranks = ALONE, lora_rank: int = 0
) -> tuple[Tensors, dict[str, float]]:
    """Episodes, parameters and Adam's moments of one update on stored rollouts, and its figures."""
    config = CONFIG.model_copy(update={"lora_rank": lora_rank, "num_epochs": 1, "mini_batch_size": 8})
    torch.manual_seed(0)
    models = load_models(policy, reward, config, ranks)
    prompts = [encode_prompt(models.tokenizer, prompt) for prompt in PROMPTS[:8]]
    rows = torch.arange(8.0, dtype=torch.float64)[:, None].expand(8, 6)
    episodes = collect_episodes(models, config, prompts, rows, 0.1, ranks, stored_rollouts)
    optimizer = make_optimizer(models.learner, config)
    figures = optimise(models, optimizer, episodes, config, torch.Generator().manual_seed(0), ranks)
    tensors = {f"episodes/{name}": getattr(episodes, name) for name in ("scores", "advantages", "returns", "logprobs")}
    for name, parameter in models.learner.named_parameters():
        if parameter.requires_grad:
            tensors[f"parameters/{name}"] = parameter.detach().clone()
            tensors[f"moments/{name}"] = optimizer.state[parameter]["exp_avg"]
    return tensors, figures


def train(policy: Path, reward: Path, folder: Path, config: PPOConfig = CONFIG) -> tuple[dict, list[int]]:  # type: ignore[type-arg]
    """A whole training with resume points; its result, and the steps that it logged."""
    steps: list[int] = []
    watched = Supervision(lambda line: steps.append(line["step"]), folder / "points")
    return train_ppo(config, PROMPTS, policy, reward, folder / "model", 0, watched), steps


def exchanges(ranks: Ranks) -> dict[str, object]:
    """Each of the exchanges on numbers that a reader can add up."""
    rows = {0: [[1.0, 2.0, 3.0]], 1: [[6.0, 100.0, -100.0]]}[ranks.rank]
    real = {0: [[True, True, True]], 1: [[True, False, False]]}[ranks.rank]
    used, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    (used * torch.tensor([1.0, 10.0 + ranks.rank])).sum().backward()
    if ranks.rank == 1:
        (unused * 5).sum().backward()
    ranks.add_gradients([used, unused])
    return {
        "shares": ranks.share(list("abcde")),
        "sequences": ranks.gather_sequences([[ranks.rank], [7] * (2 + ranks.rank)], 3),
        "whitened": whiten(ranks.gather(torch.tensor(rows)), ranks.gather(torch.tensor(real))).tolist(),
        "added": ranks.add([1.0, float(ranks.rank)]),
        "gradients": [used.grad.tolist(), unused.grad.tolist()],  # type: ignore[union-attr]
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
    }


def main(folder: Path) -> None:
    ranks = Ranks.join()
    policy, reward = folder / "policy", folder / "reward"
    tensors, figures = one_update(policy, reward, ranks)
    adapted, _ = one_update(policy, reward, ranks, lora_rank=2)
    tensors |= {f"lora/{name}": tensor for name, tensor in adapted.items()}
    whole, steps = train(policy, reward, folder / "whole")
    resumed, resumed_steps = train(policy, reward, folder / "resumed")
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / f"rank-{ranks.rank}.safetensors")
    told = {"exchanges": exchanges(ranks), "figures": figures, "whole": whole, "resumed": resumed}
    told |= {"steps": steps, "resumed_steps": resumed_steps}
    (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
