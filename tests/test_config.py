"""Presets load, overrides work, and a wrong setting is named before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.config import PRESETS, ConfigError, leaves, load_config, read_yaml

ROOT = Path(__file__).resolve().parent.parent


BASES = ("micro", "paper", "small")
OVERLAYS = sorted(path.stem for path in PRESETS.glob("*.yaml") if path.stem not in BASES)


@pytest.mark.parametrize("preset", BASES)
def test_preset_to_start_from_is_a_valid_config(preset):
    config = load_config([preset], None, [])
    assert (ROOT / config.constitution).exists()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_preset_over_another_changes_what_it_says_and_nothing_else(overlay, base):
    before, after = (load_config(presets, None, []).model_dump(mode="json") for presets in ([base], [base, overlay]))
    said = leaves(read_yaml(PRESETS / f"{overlay}.yaml"))
    whole = leaves(after)
    assert said and all(whole[name] == value for name, value in said.items())
    untouched = {name: value for name, value in leaves(before).items() if not within(name, said)}
    assert untouched == {name: value for name, value in whole.items() if not within(name, said)}
    assert (ROOT / after["constitution"]).exists()


def within(name: str, said: dict) -> bool:
    """Whether a setting is one that is said, or a mapping that what is said fills."""
    return any(name == other or other.startswith(f"{name}.") or name.startswith(f"{other}.") for other in said)


def test_presets_combine_in_order():
    config = load_config(["micro", "anti-evasion", "more-rounds", "jury"], None, [])
    assert (config.constitution, config.revise.num_rounds) == ("constitutions/anti-evasion.yaml", 6)
    assert config.improve.gate == "stop" and len(config.models.jury) == 2
    assert config.revise.sampling.max_tokens == 64  # the section's rest is the first preset's


def test_presets_that_disagree_are_named_unless_a_setting_decides():
    both = ["micro", "anti-evasion", "stronger-critique"]
    with pytest.raises(ConfigError, match=r"presets anti-evasion and stronger-critique both set constitution, to "):
        load_config(both, None, [])
    config = load_config(both, None, ["constitution=constitutions/general.yaml"])
    assert config.constitution == "constitutions/general.yaml"


def test_preset_over_nothing_says_what_is_missing():
    with pytest.raises(ConfigError, match=r"models\.pretrained: is required"):
        load_config(["jury"], None, [])


def test_paper_preset_states_the_papers_values():
    config = load_config(["paper"], None, [])
    assert (config.revise.num_rounds, config.respond.num_helpful_samples, config.sft.rounds) == (4, 2, "all")
    ppo = config.rl.ppo
    assert (ppo.kl_coef, ppo.clip_range, ppo.gamma, ppo.max_tokens) == (0.001, 0.2, 1, 128)
    assert config.sft.training.batch_size == 1024 and config.respond.sampling.temperature == 1


def test_practice_preset_states_where_recipes_differ_from_the_paper():
    config = load_config(["paper", "practice"], None, [])
    assert (config.rl.ppo.kl_coef, config.rl.ppo.learning_rate, config.reward.learning_rate) == (0.05, 1e-6, 1e-5)
    assert (config.compare.sampling.temperature, config.revise.num_rounds, config.reward.max_tokens) == (0.8, 3, 1024)
    assert {config.sft.training.lora_rank, config.reward.lora_rank, config.rl.ppo.lora_rank} == {16}


def test_config_settings_win_over_file_and_file_over_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("revise: {num_rounds: 2}\nrun: {seed: 5}\n")
    config = load_config(["micro"], str(file), ["revise.num_rounds=3"])
    assert (config.revise.num_rounds, config.run.seed) == (3, 5)
    assert config.judge.evaluator == "micro_oracle"  # the rest of the preset stays


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("revise.num_round=3", "did you mean 'num_rounds'"),
        ("revise.num_rounds=0", "revise.num_rounds: Input should be greater than or equal to 1, got 0"),
        ("nonsense=1", "nonsense: unknown setting"),
        ("rl.ppo.batch_size=100", "batch_size is 100, expected a multiple of mini_batch_size"),
        ("run.serving.engine=tgi", "run.serving.engine"),
        ("revise", "expected name=value"),
        ("revise.num_rounds=[", "is not YAML"),
        ("run.serving.url=http://x, ", "engine"),
    ],
)
def test_config_wrong_setting_is_named(setting, expected):
    settings = [setting] if "url" not in setting else ["run.serving.url=http://x", "run.serving.engine=transformers"]
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
        load_config(["micro"], None, settings)


def test_config_empty_value_is_an_empty_text():
    assert load_config(["micro"], None, ["prompts.helpful="]).prompts.helpful == ""


def test_config_unknown_preset_lists_those_there_are():
    with pytest.raises(ConfigError, match=", ".join(sorted([*BASES, *OVERLAYS]))):
        load_config(["mikro"], None, [])


def test_config_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_config(["micro"], "nowhere.yaml", [])


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["config", "--set", "revise.num_rouns=2"], 2, "did you mean 'num_rounds'"),
        (["aline"], 2, "No such command"),
        (["constitution", "check", "constitutions/nowhere.yaml"], 1, "nowhere.yaml"),
        (["constitution", "check", "constitutions/harmlessness.yaml"], 0, "harmlessness"),
        (["--help"], 0, "align"),
    ],
)
def test_command_line_exit_codes_and_no_traceback(arguments, code, expected):
    command = [sys.executable, "-m", "flows", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    assert expected in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_import_flows_needs_neither_torch_nor_vllm():
    script = (
        "import sys; sys.modules['torch'] = sys.modules['vllm'] = sys.modules['trl'] = None;"
        "import flows.align, flows.cli; print('imported')"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "imported", result.stderr[-2000:]


def test_config_several_rounds_of_dpo_are_refused():
    with pytest.raises(ConfigError, match=r"num_rounds is 2, expected 1 for dpo"):
        load_config(["micro"], None, ["rl.algorithm=dpo", "rl.num_rounds=2"])
