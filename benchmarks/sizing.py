"""What 1B, 7B and 70B would take of GPUs, hours, storage and money: `python -m benchmarks.sizing`. All of it computed.

Every assumption is a setting: --set work.red_team_prompts=20000 --set hardware.gpu_hour_price=2.2. `--check` runs what
a CPU can, and prints measured beside computed (benchmarks/sizing_check.py). No GPU was measured, so of this table
nothing is confirmed but the arithmetic.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tasks.planning.sizing import Hardware, Sizing, StageSize
from tasks.planning.workload import Workload
from tasks.training.preflight.shape import shape_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HEADER = "| model | stage | how | GPUs | hours | GPU hours | stored GiB | price |\n|---|---|---|---|---|---|---|---|"


def models() -> dict[str, "PretrainedConfig"]:
    """Llamas of three sizes: 3.2's of 1B, and those of 7B and 70B of 2023."""
    from transformers import LlamaConfig

    one = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    one |= {"intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True}
    seventy = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
    seventy |= {"intermediate_size": 28_672}
    context: dict[str, Any] = {"max_position_embeddings": 4096}
    return {
        "1B": LlamaConfig(**one, **context),
        "7B": LlamaConfig(**context),
        "70B": LlamaConfig(**seventy, **context),
    }


def sizing_of(config: "PretrainedConfig", work: Workload, hardware: Hardware) -> Sizing:
    return Sizing(policy=shape_of(config, "tokens"), scorer=shape_of(config, "scalar"), work=work, hardware=hardware)


def lines(name: str, stages: list[StageSize], hardware: Hardware) -> Iterator[str]:
    """A table's rows, and their sum."""
    for found in stages:
        numbers = f"{found.hours:.1f} | {found.hours * found.gpus:.0f} | {found.stored_gib:.1f} | {found.price:.0f}"
        given = f"{found.gpus} | {numbers}" if found.gpus else "none | | | |"
        yield f"| {name} | {found.stage} | {found.way} | {given} |"
    hours, most = sum(f.hours for f in stages), max(f.gpus for f in stages)
    stored, spent = sum(f.stored_gib for f in stages), sum(f.hours * f.gpus for f in stages)
    price = sum(f.price for f in stages) + stored * hardware.gib_month_price
    numbers = f"{most} | {hours:.1f} | {spent:.0f} | {stored:.1f} | {price:.0f}"
    yield f"| **{name}** | **all** | and a month of storage | {numbers} |"


def settings(given: Sequence[str]) -> tuple[Workload, Hardware]:
    """Raises: ValueError: a setting is unknown or out of range."""
    values: dict[str, dict[str, str]] = {"work": {}, "hardware": {}}
    for setting in given:
        name, sign, value = setting.partition("=")
        part, _, field = name.partition(".")
        if not sign or part not in values:
            raise ValueError(f"--set {setting}: expected work.NAME=VALUE or hardware.NAME=VALUE")
        values[part][field] = value
    return Workload.model_validate(values["work"]), Hardware.model_validate(values["hardware"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="NAME=VALUE")
    parser.add_argument("--check", action="store_true", help="measure what a CPU can, beside what is computed")
    options = parser.parse_args(arguments)
    work, hardware = settings(options.settings)
    if options.check:
        from benchmarks.sizing_check import check

        check()
        return
    for part in (work, hardware):
        print(", ".join(f"{name} {value}" for name, value in part.model_dump().items()), end="\n\n")
    print(HEADER)
    for name, config in models().items():
        print("\n".join(lines(name, sizing_of(config, work, hardware).stages(), hardware)), flush=True)


if __name__ == "__main__":
    main()
