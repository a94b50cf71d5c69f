"""What a whole alignment takes on GPUs that were never touched: a sum of tokens, arithmetic and bytes.

Every figure is computed. A model of N parameters takes 2N floating-point operations a token forward and 6N in a
training, 8N where activations are recomputed. Decoding is bound by reading weights and the cache of keys and values.
Memory is the preflight's estimate. Not in it: attention's own arithmetic (a few percent at these lengths), waiting in
queues, failed runs, rows that are reused, and comparisons by people.
"""

from collections.abc import Callable, Iterator
from functools import partial

from pydantic import Field

from tasks.planning.workload import Tokens, Workload, asked, stored_rows, trained_tokens
from tasks.schema import Frozen
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.launch_command import Kind
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight.device import Device
from tasks.training.preflight.memory import AnyConfig, Lengths, Training, memory_parts, peak
from tasks.training.preflight.shape import ModelShape
from tasks.training.rl_config import DPOConfig, GroupConfig, PPOConfig

FORWARD, TRAINED, RECOMPUTED, ADAPTED = 2, 6, 8, 6
"""Operations a parameter and token. ADAPTED: forward, once more while recomputed, backward to activations alone."""
SAVED = 2
"""Bytes a parameter of a model in the store and at a server: bfloat16."""
RESUMED = 12
"""Bytes a parameter in a resume point: weight and two moments in float32. The newest two are kept while it trains."""
LONGEST_COMPLETION = 128
"""Tokens that RL samples at most, as the paper does."""
STAGES = ("respond", "revise", "sft", "compare", "label", "reward", "rl", "evaluate")


class Hardware(Frozen):
    """GPUs, what of them is achieved, and prices. Defaults: an H100 of 80 GB by its data sheet; shares and prices are
    assumptions to be replaced by your own measurements and offers."""

    name: str = "H100 80 GB"
    memory_gib: float = 79.6
    flops: float = 989e12
    """Dense bfloat16 operations a second."""
    bandwidth: float = 3.35e12
    """Bytes of memory a second."""
    training_share: float = Field(0.35, gt=0, le=1)
    """Of `flops`, in trainings."""
    prefill_share: float = Field(0.40, gt=0, le=1)
    """Of `flops`, while a server reads prompts."""
    decode_share: float = Field(0.50, gt=0, le=1)
    """Of `bandwidth`, while it writes."""
    sequences: int = 128
    """In flight at a server."""
    starting_seconds: float = 300.0
    """A stage's process, weights and compilation."""
    max_gpus: int = 64
    within_hours: float = 24.0
    """GPUs are doubled until a stage takes no longer, or `max_gpus` is reached."""
    gpu_hour_price: float = 3.0
    gib_month_price: float = 0.023
    bytes_a_token: float = 2.5
    """Of text in the store, compressed."""
    bytes_a_row: float = 350.0
    """Of names and hashes in the store, which do not compress."""

    @property
    def device(self) -> Device:
        size = int(self.memory_gib * 2**30)
        return Device(kind="cuda", name=self.name, count=self.max_gpus, bytes=size, source="sizing")


class StageSize(Frozen):
    """What a stage takes."""

    stage: str
    way: str
    """How it is done, where there is a choice."""
    gpus: int
    """0: no way fits `max_gpus`."""
    hours: float
    stored_gib: float
    price: float


class Sizing(Frozen):
    """A model, the work and the machine: all that the sums follow from. One model plays every part."""

    policy: ModelShape
    scorer: ModelShape
    """The same with a scalar head."""
    work: Workload = Workload()
    hardware: Hardware = Hardware()

    def stages(self) -> list[StageSize]:
        """Every stage that takes a GPU, in order."""
        sizes = [self.generating(stage, tokens) for stage, tokens in asked(self.work).items()]
        sizes += [self.training(stage, ways) for stage, ways in trainings(self.work).items()]
        return sorted(sizes, key=lambda found: STAGES.index(found.stage))

    def generating(self, stage: str, tokens: Tokens) -> StageSize:
        gpus = least(self.serves, self.hardware.max_gpus)
        return self.sized(stage, "vLLM", gpus, partial(self.generation_seconds, tokens), 0.0)

    def training(self, stage: str, ways: dict[str, AnyConfig]) -> StageSize:
        """The first way that fits; no GPUs where none does."""
        for way, config in ways.items():
            if gpus := least(partial(self.trains, stage, config), self.hardware.max_gpus):
                resumed = 0 if config.lora_rank else 2 * RESUMED
                stored = (SAVED + resumed) * self.policy.num_parameters
                return self.sized(stage, way, gpus, partial(self.training_seconds, stage, config), stored)
        return StageSize(stage=stage, way="does not fit", gpus=0, hours=0.0, stored_gib=0.0, price=0.0)

    def sized(self, stage: str, way: str, least_gpus: int, seconds: Callable[[int], float], models: float) -> StageSize:
        """With GPUs doubled until it takes no longer than asked; nothing where no number of GPUs holds it."""
        if not least_gpus:
            return StageSize(stage=stage, way="does not fit", gpus=0, hours=0.0, stored_gib=0.0, price=0.0)
        hardware = self.hardware
        hours = {n: (seconds(n) + hardware.starting_seconds) / 3600 for n in powers(least_gpus, hardware.max_gpus)}
        gpus = next((n for n, taken in hours.items() if taken <= hardware.within_hours), max(hours))
        stored = models + self.stored_text(stage)
        price = hours[gpus] * gpus * hardware.gpu_hour_price
        return StageSize(stage=stage, way=way, gpus=gpus, hours=hours[gpus], stored_gib=stored / 2**30, price=price)

    def stored_text(self, stage: str) -> float:
        """Bytes of rows."""
        rows, tokens = stored_rows(self.work).get(stage, (0.0, 0.0))
        return rows * (self.hardware.bytes_a_row + tokens * self.hardware.bytes_a_token)

    def serves(self, gpus: int) -> bool:
        """Whether so many GPUs hold weights and the cache of all sequences in flight."""
        return self.moved <= 0.9 * self.hardware.device.bytes * gpus

    @property
    def moved(self) -> float:
        """Bytes that a step of decoding reads: weights, and keys and values of every row, all in bfloat16."""
        row = 2 * self.work.row_tokens + self.work.request_tokens
        pairs = 2 * SAVED * self.policy.num_layers * self.policy.keys * row
        return SAVED * self.policy.num_parameters + self.hardware.sequences * pairs

    def generation_seconds(self, tokens: Tokens, gpus: int) -> float:
        """Reading prompts is arithmetic; writing is bound by memory, or by arithmetic where many are in flight."""
        hardware, forward = self.hardware, FORWARD * self.policy.num_parameters
        a_token = forward / (hardware.flops * hardware.prefill_share)
        step = max(self.moved / (hardware.bandwidth * hardware.decode_share), hardware.sequences * a_token)
        return (tokens.read * a_token + tokens.written / hardware.sequences * step) / gpus

    def trains(self, stage: str, config: AnyConfig, gpus: int) -> bool:
        """Whether the preflight's estimate of one process is within a GPU."""
        return peak(memory_parts(self.described(stage, config, gpus))) <= self.hardware.device.bytes

    def described(self, stage: str, config: AnyConfig, gpus: int) -> Training:
        """What the preflight would look at. PPO takes no sharding: more GPUs do not lower what each holds."""
        kind = kind_of(stage, config)
        row = self.work.max_tokens
        return Training(
            kind=kind,
            config=config,
            policy=self.scorer if kind == "reward" else self.policy,
            rewards=(self.scorer,) if kind in ("ppo", "rloo") else (),
            lengths=Lengths(prompt=row - LONGEST_COMPLETION if stage == "rl" else row, row=row),
            launch=LaunchConfig(num_processes=gpus, sharding="none" if gpus == 1 or kind == "ppo" else "fsdp2"),
            device=self.hardware.device,
        )

    def training_seconds(self, stage: str, config: AnyConfig, gpus: int) -> float:
        """Arithmetic of what learns and what measures, and of RL the sampling before it."""
        kind = kind_of(stage, config)
        tokens = trained_tokens(self.work)["reward" if kind == "dpo" else stage]
        # PPO: policy and value learn; old policy, reference, value and reward model measure. RLOO has no value model,
        # DPO a reference alone
        learn, measure = {"ppo": (2, 4), "rloo": (1, 3), "dpo": (1, 1)}.get(kind, (1, 0))
        operations = tokens * self.policy.num_parameters * (learn * operations_of(config) + measure * FORWARD)
        seconds = operations / (self.hardware.flops * self.hardware.training_share * gpus)
        if kind not in ("ppo", "rloo"):
            return seconds
        written = tokens * self.work.completion_tokens / self.work.row_tokens
        return seconds + self.generation_seconds(Tokens(tokens - written, written), gpus)


def trainings(work: Workload) -> dict[str, dict[str, AnyConfig]]:
    """Ways to do each training, the paper's first. Micro-batches of 1 and recomputed activations throughout."""
    mild = {"micro_batch_size": 1, "gradient_checkpointing": True, "precision": "bfloat16"}
    adapters = {**mild, "lora_rank": 16}
    sampled = {"max_prompt_tokens": work.max_tokens - LONGEST_COMPLETION, "batch_size": work.ppo_batch}
    ppo = {**sampled, "max_tokens": LONGEST_COMPLETION, "mini_batch_size": work.ppo_batch, "eval_prompts": 0}
    return {
        "sft": {"all weights": SFTConfig.model_validate(mild), "adapters": SFTConfig.model_validate(adapters)},
        "reward": {"all weights": RewardConfig.model_validate(mild), "adapters": RewardConfig.model_validate(adapters)},
        "rl": {
            "PPO, all weights": PPOConfig.model_validate({**mild, **ppo}),
            "PPO, adapters": PPOConfig.model_validate({**adapters, **ppo}),
            "RLOO, adapters": GroupConfig.model_validate({**adapters, **sampled, "max_tokens": LONGEST_COMPLETION}),
            "DPO, adapters": DPOConfig.model_validate(adapters),
        },
    }


def kind_of(stage: str, config: AnyConfig) -> Kind:
    if isinstance(config, PPOConfig):
        return "ppo"
    if isinstance(config, DPOConfig):
        return "dpo"
    return "rloo" if stage == "rl" else "sft" if stage == "sft" else "reward"


def operations_of(config: AnyConfig) -> int:
    """A parameter and token that is learnt from."""
    return ADAPTED if config.lora_rank else RECOMPUTED if config.gradient_checkpointing else TRAINED


def least(fits: Callable[[int], bool], most: int) -> int:
    """The smallest power of two up to `most` that fits; 0 if none does."""
    return next((count for count in powers(1, most) if fits(count)), 0)


def powers(first: int, most: int) -> Iterator[int]:
    while first <= most:
        yield first
        first *= 2
