"""How much memory a training takes at its peak, part by part, of one process: a sum anyone can follow.

Weights that are trained are float32 with float32 gradients and two float32 moments: 16 bytes a parameter. A part
stands in memory always or in one of the phases that follow each other; the peak is what is always there and the
largest phase.
"""

from collections.abc import Iterator
from typing import Literal

from tasks.schema import Frozen
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.launch_command import Kind
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight import activations as act
from tasks.training.preflight.device import Device
from tasks.training.preflight.shape import ModelShape
from tasks.training.rl_config import DPOConfig, GroupConfig, PPOConfig
from tasks.training.scoring import TOKENS_PER_BATCH

AnyConfig = SFTConfig | RewardConfig | PPOConfig | GroupConfig | DPOConfig
Phase = Literal["always", "learning", "sampling", "measuring"]

GIB = 2**30
LIBRARIES = {"cpu": int(0.6 * GIB), "cuda": int(0.6 * GIB)}
"""Interpreter and libraries (CPU, measured), or a CUDA context with its libraries' workspaces (practice)."""
SAMPLING_TOKENS = 32_768
"""Tokens of a batch that PPO samples (`rollout.TOKENS_PER_BATCH`)."""
SERVER_CACHE = GIB
"""Keys and values of a vLLM server: on a CPU its setting (`ServingConfig.cpu_cache_gib`), on a GPU the least of use."""
MEASURING_FACTOR = 4
"""PPO measures so many micro-batches at once (`episodes.FORWARD_FACTOR`)."""
BYTES = {"float32": 4, "bfloat16": 2}


class Lengths(Frozen):
    """The longest there is, in tokens."""

    prompt: int
    """A prompt alone."""
    row: int
    """A whole row: prompt and completion, sampled or learnt."""


class Training(Frozen):
    """Everything that the estimate follows from."""

    kind: Kind
    config: AnyConfig
    policy: ModelShape
    """Of the model to train; of a reward model's training its base with a scalar head."""
    rewards: tuple[ModelShape, ...] = ()
    """Of the reward model, and of the one that only measures if there is one."""
    lengths: Lengths
    launch: LaunchConfig
    device: Device

    @property
    def numbers(self) -> act.Arithmetic:
        """What passes compute in."""
        inner, adapters = BYTES[self.config.precision], self.config.lora_rank > 0
        # PPO keeps but the linear layers of what is frozen in `precision`; the other trainers load the whole so
        return act.Arithmetic(inner, inner if adapters and self.kind != "ppo" else act.FLOAT32, adapters)


class Part(Frozen):
    """Something that takes memory."""

    name: str
    phase: Phase
    bytes: int


def memory_parts(training: Training) -> list[Part]:
    """All parts of one process, without those that take nothing."""
    parts = [Part(name="libraries", phase="always", bytes=LIBRARIES[training.device.kind])]
    for name, shape in learners(training).items():
        parts += _learner(name, shape, training)
    parts += _frozen(training)
    parts += _logits(training)
    parts += _sampling(training)
    parts += _measuring(training)
    return [part for part in parts if part.bytes]


def peak(parts: list[Part]) -> int:
    """Bytes at the worst moment."""
    sums = dict.fromkeys(("always", "learning", "sampling", "measuring"), 0)
    for part in parts:
        sums[part.phase] += part.bytes
    return sums.pop("always") + max(sums.values())


def learners(training: Training) -> dict[str, ModelShape]:
    """The models that learn, by name."""
    if training.kind == "reward":
        return {"reward model": training.policy}
    value = {"value model": training.rewards[0]} if training.kind == "ppo" else {}
    return {"policy": training.policy, **value}


def _learner(name: str, shape: ModelShape, training: Training) -> Iterator[Part]:
    config, sharding, processes = training.config, training.launch.sharding, training.launch.total_processes
    shards = processes if sharding != "none" else 1
    weight_shards = processes if sharding in ("fsdp2", "zero3") else 1
    trained = num_trained(shape, config.lora_rank, name)
    frozen = frozen_bytes(shape, training) if config.lora_rank else 0
    yield Part(name=f"{name}: weights", phase="always", bytes=(frozen + 4 * trained) // weight_shards)
    yield Part(name=f"{name}: optimizer state", phase="always", bytes=8 * trained // shards)
    if config.precision == "bfloat16" and not frozen and weight_shards == 1:
        # autocast casts each trained matrix once and keeps the copy
        copied = shape.num_linear + (shape.num_head if training.kind == "ppo" else 0)
        yield Part(name=f"{name}: bfloat16 copies", phase="always", bytes=2 * copied)
    yield Part(name=f"{name}: gradients", phase="learning", bytes=4 * trained // shards)
    if not frozen:
        yield Part(name=f"{name}: a matrix's new gradient", phase="learning", bytes=4 * shape.largest_matrix)
    if weight_shards > 1:
        gathered = 2 * BYTES[config.precision] * shape.largest_layer  # the next one is fetched meanwhile
        yield Part(name=f"{name}: gathered layers", phase="learning", bytes=gathered)
    if sharding == "none" and processes > 1 and training.kind != "ppo":
        yield Part(name=f"{name}: gradients in exchange", phase="learning", bytes=4 * trained)
    size = act.activations(shape, tokens_at_once(training), training.numbers, config.gradient_checkpointing)
    yield Part(name=f"{name}: activations", phase="learning", bytes=size)


def num_trained(shape: ModelShape, rank: int, name: str) -> int:
    """Parameters that learn: all, or adapters, and with them a scalar head, which starts at random."""
    if not rank:
        return shape.num_parameters
    return shape.num_adapter(rank) + (0 if name == "policy" else shape.num_head)


def frozen_bytes(shape: ModelShape, training: Training) -> int:
    """Weights of a model that does not learn, or but by adapters."""
    small = BYTES[training.config.precision]
    if training.kind == "ppo":  # embeddings stay float32
        return act.FLOAT32 * shape.num_embedding + small * (shape.num_parameters - shape.num_embedding)
    return shape.num_parameters * (small if training.config.lora_rank else act.FLOAT32)


def tokens_at_once(training: Training) -> int:
    """Of a backward pass: a micro-batch, of comparisons both sides."""
    sides = 2 if training.kind in ("reward", "dpo") else 1
    return sides * training.config.micro_batch_size * training.lengths.row


def _frozen(training: Training) -> Iterator[Part]:
    """Models that only measure."""
    config = training.config
    shards = training.launch.total_processes if training.launch.sharding in ("fsdp2", "zero3") else 1
    is_held = isinstance(config, PPOConfig | DPOConfig) or (isinstance(config, GroupConfig) and config.kl_coef > 0)
    if is_held and not config.lora_rank:  # with adapters it is the policy without them
        size = frozen_bytes(training.policy, training) // shards
        yield Part(name="reference model: weights", phase="always", bytes=size)
    if isinstance(config, PPOConfig) and config.eval_prompts and training.device.kind == "cpu":
        # the best policy measured is kept in the machine's memory, which is the device only here
        size = 4 * num_trained(training.policy, config.lora_rank, "policy")
        yield Part(name="best policy so far", phase="always", bytes=size)
    for name, shape in zip(("reward model", "held-out reward model"), training.rewards, strict=False):
        size = frozen_bytes(shape, training) if training.kind == "ppo" else act.FLOAT32 * shape.num_parameters
        yield Part(name=f"{name}: weights", phase="always", bytes=size)


def _logits(training: Training) -> Iterator[Part]:
    config = training.config
    if isinstance(config, RewardConfig):
        return
    if isinstance(config, PPOConfig):
        size = act.packed_logits(training.policy, config.micro_batch_size * config.max_tokens)
    else:
        on_gpu = training.device.kind == "cuda"
        size = act.tiled_logits(training.policy, tokens_at_once(training), training.numbers, on_gpu)
    yield Part(name="logits", phase="learning", bytes=size)


def _sampling(training: Training) -> Iterator[Part]:
    config, shape, lengths = training.config, training.policy, training.lengths
    if not isinstance(config, PPOConfig | GroupConfig):
        return
    if isinstance(config, PPOConfig) and config.rollouts == "vllm":
        yield Part(name="vLLM server", phase="always", bytes=server_bytes(training, config))
        return
    rows = -(-config.batch_size // training.launch.total_processes)
    numbers = training.numbers
    pair = 2 * numbers.stream
    if isinstance(config, PPOConfig):
        rows = max(1, min(rows, SAMPLING_TOKENS // lengths.row))
        pair = act.FLOAT32 + numbers.inner  # rotary embeddings make keys float32 again
    yield Part(name="keys and values", phase="sampling", bytes=act.cache(shape, rows * lengths.row, pair))
    prompts = act.forward_only(shape, rows * lengths.prompt, numbers)
    yield Part(name="reading prompts", phase="sampling", bytes=prompts)
    yield Part(name="logits of next tokens", phase="sampling", bytes=act.next_token_logits(shape, rows))


def server_bytes(training: Training, config: PPOConfig) -> int:
    """What the server that samples takes of the same device: its share of a GPU, and at least what it needs."""
    needed = SERVER_CACHE + BYTES[config.precision] * training.policy.num_parameters
    if training.device.kind == "cuda":
        return max(needed, int(config.rollout_memory_share * training.device.bytes))
    return LIBRARIES["cpu"] + needed


def _measuring(training: Training) -> Iterator[Part]:
    config, row, numbers = training.config, training.lengths.row, training.numbers
    if isinstance(config, SFTConfig | DPOConfig):
        return
    scorers = {"reward": (training.policy,), "ppo": training.rewards[1:]}.get(training.kind, training.rewards)
    sizes = [act.forward_only(shape, max(TOKENS_PER_BATCH, row), numbers) for shape in scorers]
    if isinstance(config, PPOConfig):
        rows = MEASURING_FACTOR * config.micro_batch_size
        logits = act.packed_logits(training.policy, rows * config.max_tokens)
        sizes.append(act.forward_only(training.policy, rows * row, numbers) + logits)
    yield Part(name="scoring and measuring", phase="measuring", bytes=max(sizes))


def default_lengths(config: AnyConfig, context: int | None) -> Lengths:
    """The longest that the settings allow, where no row is known yet."""
    if isinstance(config, PPOConfig | GroupConfig):
        row = within(config.max_prompt_tokens + config.max_tokens, context)
        return Lengths(prompt=max(1, row - config.max_tokens), row=row)
    row = within(config.max_tokens, context)
    return Lengths(prompt=row, row=row)


def within(num_tokens: int, context: int | None) -> int:
    """So many tokens, or the model's context where that is shorter."""
    return min(num_tokens, context or num_tokens)
