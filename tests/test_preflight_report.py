"""The whole preflight, on folders without weights."""

from pathlib import Path
from typing import Any

import pytest

from tasks.schema import Message
from tasks.store import Corrupt, Store
from tasks.training.config import SFTConfig
from tasks.training.examples import PromptExample, SFTExample
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight import report as reporting
from tasks.training.preflight.device import Device
from tasks.training.preflight.report import PreflightReport, preflight, report_on
from tasks.training.rl_config import PPOConfig
from tests.small_versions import derivation
from tests.test_preflight_memory import GPU, training
from tests.tiny_model import make_tiny_model

PROMPT = [Message(role="user", content="hi")]
SFT = [SFTExample(prompt=PROMPT, completion="hello")] * 3
ENOUGH, TOO_LITTLE = LaunchConfig(device_memory_gib=8), LaunchConfig(device_memory_gib=0.01)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    (folder / "model.safetensors").unlink()
    return folder


def test_preflight_what_fits_is_reported_part_by_part(tiny: Path) -> None:
    report = preflight("ppo", PPOConfig(), [PromptExample(prompt=PROMPT)], {"model": tiny, "reward": tiny}, ENOUGH)
    assert report.fits and report.remedies == () and report.warnings == ()
    assert report.rows is not None and report.rows.longest_prompt == 5
    assert set(report.num_parameters) == {"model", "reward"}
    assert report.peak_bytes <= sum(part.bytes for part in report.parts)
    assert PreflightReport.model_validate_json(report.model_dump_json()) == report
    for name in ("policy: weights", "value model: gradients", "keys and values", "fits"):
        assert name in report.table()


def test_preflight_what_does_not_fit_is_refused_with_parts_and_the_way_out(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"sft does not fit: about .* GiB .*policy: weights .*preflight=warn"):
        preflight("sft", SFTConfig(), SFT, {"model": tiny}, TOO_LITTLE)


def test_preflight_refusal_names_the_setting_that_fits() -> None:
    fits = reporting.needed(training("sft", SFTConfig(gradient_checkpointing=True)))
    report = report_on(training("sft", SFTConfig(), device=GPU.model_copy(update={"bytes": fits})))
    assert "What would fit: sft.training.gradient_checkpointing=true" in reporting.refusal(report)


def test_preflight_warn_goes_on_and_says_so(tiny: Path) -> None:
    launch = TOO_LITTLE.model_copy(update={"preflight": "warn"})
    report = preflight("sft", SFTConfig(), SFT, {"model": tiny}, launch)
    assert not report.fits
    assert any("does not fit" in warning for warning in report.warnings)


def test_preflight_rows_of_true_length_need_less_than_the_longest_allowed(tiny: Path) -> None:
    def activations(count: int) -> int:
        row = SFTExample(prompt=PROMPT, completion="a" * count)
        report = preflight("sft", SFTConfig(), [row], {"model": tiny}, ENOUGH)
        return next(part.bytes for part in report.parts if "activations" in part.name)

    assert activations(94) == 10 * activations(4)  # rows of 100 and of 10 tokens


def test_preflight_packed_rows_are_as_long_as_allowed(tiny: Path) -> None:
    rows = preflight("sft", SFTConfig(max_tokens=64), SFT, {"model": tiny}, ENOUGH).rows
    assert rows is not None
    assert reporting.lengths_of(SFTConfig(max_tokens=64, packing=True), rows).row == 64
    assert reporting.lengths_of(SFTConfig(max_tokens=64), rows).row == rows.longest == 11


def test_preflight_more_processes_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Device(kind="cuda", name="GPU", count=2, bytes=2**30, source="test")
    monkeypatch.setattr(reporting, "find_device", lambda gib: two)
    with pytest.raises(ValueError, match="num_processes is 3, this machine has 2 GPUs"):
        reporting.device_of(LaunchConfig(num_processes=3))


def test_preflight_nearly_full_is_a_warning() -> None:
    of = training("sft", SFTConfig())
    tight: Any = of.model_copy(update={"device": GPU.model_copy(update={"bytes": int(reporting.needed(of) * 1.1)})})
    report = report_on(tight)
    assert report.fits and "91% of the device's memory" in report.warnings[0]


def test_fetch_model_files_brings_no_weights_and_checks_what_it_brings(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    ref = store.commit_model(derivation("models/sl"), make_tiny_model(tmp_path / "m"), metrics={}, cost={})
    folder = store.fetch_model_files(ref)
    assert {"config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert not list(Path(tmp_path / "cache").rglob("*.safetensors"))
    preflight("sft", SFTConfig(), SFT, {"model": folder}, ENOUGH)
    stored = next((tmp_path / "store").rglob("tokenizer.json"))
    stored.chmod(0o644)
    stored.write_text("{}")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(Corrupt, match=r"tokenizer\.json"):
        store.fetch_model_files(ref)


def test_fetch_model_files_of_an_outside_folder_reads_no_weights(tmp_path: Path) -> None:
    from tasks.store import resolve_external_model

    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    folder = make_tiny_model(tmp_path / "m")
    ref = resolve_external_model(str(folder))
    (folder / "model.safetensors").unlink()
    assert store.fetch_model_files(ref) == folder.resolve()
