"""Tiny policies and reward models for tests of PPO: they say words over a and b, and like a, length or brevity."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from tasks.schema import Message
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.examples import PreferenceExample, SFTExample
from tasks.training.reward import train_reward
from tasks.training.rl_config import PPOConfig, StopRules
from tasks.training.sft import train_sft
from tasks.training.supervision import UNWATCHED
from tests.tiny_model import make_tiny_model

LAX = StopRules(window=2, max_kl=1e6, min_entropy=0, max_length_ratio=50, max_reward_gap=50)
CONFIG = PPOConfig(
    num_updates=8,
    batch_size=32,
    mini_batch_size=16,
    micro_batch_size=16,
    num_epochs=2,
    learning_rate=2e-3,
    value_learning_rate=5e-3,
    kl_coef=0.0,
    max_tokens=6,
    eval_every=2,
    eval_prompts=4,
    checkpoint_every=2,
    rules=LAX,
)
PROMPTS = [[Message(role="user", content="go" * (1 + i % 3))] for i in range(10)]
WORDS = ["".join(reversed(letters)) for letters in itertools.product("ab", repeat=3)]
WORDS_OF_ANY_LENGTH = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("ab", repeat=n)]


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def make_policy(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """Says the words, each about as often as another."""
    base = make_tiny_model(folder / "base")
    examples = [SFTExample(prompt=PROMPTS[i % 10], completion=words[i % len(words)]) for i in range(160)]
    config = SFTConfig(epochs=3, learning_rate=1e-2, batch_size=16, micro_batch_size=16)
    train_sft(config, examples, base, folder / "policy", 0, UNWATCHED)
    return folder / "policy"


def make_reward(folder: Path, policy: Path, liking: Callable[[str], float], words: Sequence[str] = WORDS) -> Path:
    """Likes a word in proportion to `liking`, which is 0 to 1."""
    pairs = [(words[i % len(words)], words[i // len(words) % len(words)]) for i in range(256)]
    preferences = [
        PreferenceExample(
            prompt=PROMPTS[i % 10],
            chosen=one,
            rejected=other,
            target_prob=0.5 + 3 / 7 * (liking(one) - liking(other)),
        )
        for i, (one, other) in enumerate(pairs)
    ]
    config = RewardConfig(epochs=3, learning_rate=3e-3, batch_size=16, micro_batch_size=16, held_out_fraction=0)
    train_reward(config, preferences, policy, folder, 0, UNWATCHED)
    return folder


def likes_a(word: str) -> float:
    return word.count("a") / 3


def likes_length(word: str) -> float:
    return len(word) / 3


def likes_brevity(word: str) -> float:
    return 1 - len(word) / 3


class Models:
    """A policy that says words of one to three letters a or b, and reward models that each like something else."""

    def __init__(self, root: Path) -> None:
        self.policy = make_policy(root, WORDS_OF_ANY_LENGTH)
        self.likes_a, self.likes_length, self.likes_brevity = (
            make_reward(root / liking.__name__, self.policy, liking, WORDS_OF_ANY_LENGTH)
            for liking in (likes_a, likes_length, likes_brevity)
        )


@functools.cache
def models_in(session: Path) -> Models:
    """Made once for all modules of a session, whose temporary folder this is."""
    return Models(session / "words")


def with_rules(config: PPOConfig = CONFIG, **rules: float) -> PPOConfig:
    return config.model_copy(update={"rules": LAX.model_copy(update=rules)})


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
