"""Peak memory of real trainings on a CPU against the preflight's estimate: `python -m benchmarks.memory`.

Two Llamas of random weights, about 5 and 30 million parameters; SFT, reward model, PPO and DPO, with all weights, with
recomputed activations, and with adapters; a few steps each in a process of its own. The estimate takes the rows' true
lengths, as it does before a run. Measured is the peak of the process's own pages (RssAnon of /proc, sampled): what a
memory limit counts and cannot take back. Files that are mapped while weights are read are no part of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.schema import Message
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.encode import load_tokenizer
from tasks.training.examples import PreferenceExample, PromptExample, SFTExample
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight.memory import AnyConfig, memory_parts, peak
from tasks.training.preflight.report import describe_training, device_of, lengths_of
from tasks.training.preflight.rows import measure_rows
from tasks.training.rl_config import DPOConfig, PPOConfig

MICRO = Path(__file__).parents[1] / "tasks/micro/model"
SIZES = {
    "5M": {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 768, "vocab_size": 2048},
    "30M": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1536, "vocab_size": 4096},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "checkpointing": {"gradient_checkpointing": True},
    "rank 8": {"lora_rank": 8},
}
ROWS, MICRO_BATCH, WORDS = 8, 8, 120
PROMPT = [Message(role="user", content=" ".join(["how do I mend a bicycle"] * (WORDS // 6)))]
TEXT = " ".join(["you take the wheel off first"] * (WORDS // 6))
EXAMPLES: dict[str, Any] = {
    "sft": SFTExample(prompt=PROMPT, completion=TEXT),
    "reward": PreferenceExample(prompt=PROMPT, chosen=TEXT, rejected=TEXT[: len(TEXT) // 2], target_prob=0.8),
    "dpo": PreferenceExample(prompt=PROMPT, chosen=TEXT, rejected=TEXT[: len(TEXT) // 2], target_prob=0.8),
    "ppo": PromptExample(prompt=PROMPT),
}


def config_of(kind: str, variant: dict[str, Any]) -> AnyConfig:
    """Two optimizer steps of 8 rows each."""
    shared = {"micro_batch_size": MICRO_BATCH, "batch_size": ROWS, **variant}
    if kind == "ppo":
        return PPOConfig(**shared, num_updates=2, mini_batch_size=ROWS, max_tokens=128, eval_prompts=0)
    return {"sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig}[kind](**shared, epochs=2)


def make_models(folder: Path, size: str) -> dict[str, Path]:
    """A policy and a reward model with random weights and the micro model's tokenizer."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from tasks.training.folders import TOKENIZER_FILES

    torch.manual_seed(0)
    heads = SIZES[size]["hidden_size"] // 32
    ids = {"pad_token_id": 0, "eos_token_id": 4, "bos_token_id": None}
    config = LlamaConfig(**SIZES[size], num_attention_heads=heads, max_position_embeddings=1024, **ids)
    LlamaForCausalLM(config).save_pretrained(folder / "policy")
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    (folder / "reward" / "reward_scale.json").write_text('{"mean": 0.0, "std": 1.0}')
    for name in TOKENIZER_FILES:
        for model in ("policy", "reward"):
            if (MICRO / name).exists():
                shutil.copyfile(MICRO / name, folder / model / name)
    return {"model": folder / "policy", "reward": folder / "reward"}


def estimate(kind: Any, config: AnyConfig, models: dict[str, Path]) -> int:
    """What the preflight says of this training's process."""
    needed = {"model": models["model"]} | ({"reward": models["reward"]} if kind == "ppo" else {})
    launch = LaunchConfig()
    rows = measure_rows(kind, config, [EXAMPLES[kind]], load_tokenizer(models["model"]), context=1024)
    training = describe_training(kind, config, lengths_of(config, rows), needed, launch, device_of(launch))
    return peak(memory_parts(training))


def measure(kind: str, config: AnyConfig, models: dict[str, Path], scratch: Path) -> tuple[int, int]:
    """(peak, before the models were loaded): bytes of a process that trains."""
    job = {"kind": kind, "config": config.model_dump(mode="json"), "output": str(scratch / "output")}
    job |= {name: str(folder) for name, folder in models.items()}
    command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps(job)]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None:
            most = max(most, own_pages(process.pid))
            time.sleep(0.003)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"{kind}: the training failed:\n{said[-2000:]}")
    return most, int(said.rsplit("libraries ", 1)[1].split()[0])


def own_pages(pid: int) -> int:
    """Bytes of RssAnon; 0 once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def train(job: dict[str, Any]) -> None:
    """In the child: import, say what that took, train."""
    import os

    from tasks.training.dpo import train_dpo
    from tasks.training.ppo.trainer import train_ppo
    from tasks.training.reward import train_reward
    from tasks.training.sft import train_sft
    from tasks.training.supervision import UNWATCHED

    import trl  # noqa: F401  isort: skip
    from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: F401

    print("libraries", own_pages(os.getpid()), flush=True)
    kind, model, output = job["kind"], Path(job["model"]), Path(job["output"])
    config: Any = config_of(kind, {})
    config = type(config)(**job["config"])
    examples: Any = [EXAMPLES[kind]] * ROWS
    if kind == "ppo":
        train_ppo(config, [e.prompt for e in examples], model, Path(job["reward"]), output, 0, UNWATCHED)
    else:
        trainers: Any = {"sft": train_sft, "reward": train_reward, "dpo": train_dpo}
        trainers[kind](config, examples, model, output, 0, UNWATCHED)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child")
    parser.add_argument("--kinds", nargs="+", default=list(EXAMPLES), choices=EXAMPLES)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    options = parser.parse_args(arguments)
    if options.child:
        train(json.loads(options.child))
        return
    print("| training | model | variant | measured MiB | estimate MiB | estimate / measured | libraries alone MiB |")
    print("|---|---|---|---|---|---|---|")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            models = make_models(Path(scratch), size)
            for kind in options.kinds:
                for variant in options.variants:
                    config = config_of(kind, VARIANTS[variant])
                    said = estimate(kind, config, models)
                    most, libraries = measure(kind, config, models, Path(scratch))
                    numbers = f"{most / 2**20:.0f} | {said / 2**20:.0f} | {said / most:.2f} | {libraries / 2**20:.0f}"
                    print(f"| {kind} | {size} | {variant} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
