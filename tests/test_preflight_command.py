"""`./solon preflight`, as typed, without a store, data or weights."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.store import StoreError

MICRO = Path("tasks/micro/model")


def run(*arguments: str, ok: bool = True) -> Result:
    result = CliRunner().invoke(app, ["preflight", *arguments])
    assert ok == (result.exit_code == 0), result.output
    return result


def test_command_every_training_of_a_run_with_its_peak() -> None:
    found = json.loads(run("--json", "--set", "reward.second_model_share=0.5").output)
    assert {name: report["kind"] for name, report in found.items()} == {
        "sft": "sft",
        "reward": "reward",
        "held_out_reward": "reward",
        "rl": "ppo",
    }
    assert all(report["needed_bytes"] > 0 for report in found.values())
    assert "held_out_reward" in found["rl"]["num_parameters"]


def test_command_other_algorithms_are_theirs() -> None:
    for algorithm, parameters in (("dpo", {"model"}), ("rloo", {"model", "reward"})):
        found = json.loads(run("--json", "--set", f"rl.algorithm={algorithm}").output)
        assert (found["rl"]["kind"], set(found["rl"]["num_parameters"])) == (algorithm, parameters)


def test_command_needs_config_and_tokenizer_files_alone_and_says_what_would_fit(tmp_path: Path) -> None:
    folder = shutil.copytree(MICRO, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    printed = run("-s", f"models.pretrained={folder}", "-s", "run.training.device_memory_gib=1").output
    assert "sft (sft): does not fit" in printed and "sft.training.gradient_checkpointing=true" in printed


def test_command_unknown_model_is_an_error_that_names_it() -> None:
    result = run("--set", "models.pretrained=./none", ok=False)
    assert isinstance(result.exception, StoreError) and "./none" in str(result.exception)


def test_command_llama_7b_shows_that_adapters_fit_40_gib_and_all_weights_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    lines = run("--preset", "paper", "--llama-7b").output.splitlines()
    sft = next(line for line in lines if line.startswith("│ sft  "))
    full, _, adapters = (cell.strip() for cell in sft.strip("│").split("│")[2:])
    assert float(full) > 6.7 * 16 * 0.93 and "*" not in full  # 16 bytes a parameter, in GiB
    assert adapters.endswith("*") and float(adapters.split()[0]) < 40
