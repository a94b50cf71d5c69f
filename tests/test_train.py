"""What a stage makes of a training: progress, resume points in the store, history, log, curves."""

import json
import logging
import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tasks import train
from tasks.resume_points import NewestWins, ResumePoints
from tasks.schema import Message, ModelRef
from tasks.stage import RunContext, Session, Stage
from tasks.store import Derivation, Store, StoreUnavailable
from tasks.train import History, run_training, thinned
from tasks.training.config import SFTConfig
from tasks.training.examples import SFTExample
from tasks.training.folders import kept_in, kept_name
from tasks.training.job import TrainingJob
from tasks.training.launch import TrainingDied
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight.report import PreflightReport
from tasks.training.trackers import Dispensable, RunCurves, TensorBoardCurves, numbers
from tests.memory_backend import MemoryBackend
from tests.small_versions import derivation, model_folder
from tests.tiny_model import make_tiny_model

DATASET = "models/rl"
Trainer = Callable[[TrainingJob, Callable[[dict], None], Callable[[Path], None]], dict[str, Any]]


EXAMPLES = [SFTExample(prompt=[Message(role="user", content="Salamis?")], completion="Marathon")]


class SomeStage(Stage):
    """A stage that trains on what it is given."""

    stage: ClassVar[str] = "rl"
    dataset: ClassVar[str] = DATASET
    code_version: ClassVar[int] = 1

    policy: ModelRef

    def make(self, session: Session) -> ModelRef:
        return run_training(self, session, SFTConfig(max_tokens=64), EXAMPLES, "sft", self.policy)


class Shown:
    """Keeps what was shown as progress."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.kinds: list[str] = []

    def update(self, done: int, total: int, note: str) -> None:
        self.steps.append(done)

    def rows(self, rows: Any, items: Any) -> None:
        raise AssertionError("a training makes no rows")

    def trained(self, kind: str, metrics: Any) -> None:
        self.kinds.append(kind)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(MemoryBackend(), tmp_path / "cache")  # type: ignore[arg-type]


@pytest.fixture
def stage(store: Store, tmp_path: Path) -> SomeStage:
    policy = store.commit_model(derivation("models/sl"), make_tiny_model(tmp_path / "sl"), metrics={}, cost={})
    return SomeStage(run=RunContext(training=LaunchConfig(tracker="none")), policy=policy)


def trained_by(monkeypatch: pytest.MonkeyPatch, trainer: Trainer) -> None:
    """Let this function be the training process."""

    def launch(
        job: TrainingJob, config: LaunchConfig, on_log: Any, on_checkpoint: Any, log_path: Path, on_policy: Any
    ) -> dict:
        with log_path.open("a") as log:
            log.write("said by the process\n")
        result = trainer(job, on_log, on_checkpoint)
        for update, folder in kept_in(job.kept).items() if job.kept else ():
            on_policy(folder, update)
        model_folder(job.output)
        return result

    monkeypatch.setattr(train, "launch", launch)


def point(job: TrainingJob, step: int) -> Path:
    assert job.checkpoint
    folder = job.checkpoint / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes([step]) * 50)
    return folder


def steps_of(folder: Path | None) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*")) if folder else []


def test_training_commits_the_model_with_a_thinned_history_and_keeps_all_of_it_and_the_log(store, stage, monkeypatch):
    lines = [{"step": i, "num_steps": 2000, "loss": 1 / i} for i in range(1, 2001)]
    trained_by(monkeypatch, lambda job, on_log, on_checkpoint: {"history": lines, "loss": 0.5})
    ref = stage.make(Session(store))
    manifest = store.manifest(DATASET, ref.version)
    history = manifest.metrics["history"]
    assert manifest.metrics["final"] == {"loss": 0.5}
    assert len(history) == 500 and (history[0], history[-1]) == (lines[0], lines[-1])
    whole = store.get_blob(DATASET, ref.version, "history.jsonl").decode().splitlines()
    assert [json.loads(line) for line in whole] == lines
    assert store.get_blob(DATASET, ref.version, "training.log") == b"said by the process\n"


def test_training_keeps_what_its_preflight_expected(store, stage, monkeypatch):
    trained_by(monkeypatch, lambda job, on_log, on_checkpoint: {})
    expected = store.manifest(DATASET, stage.make(Session(store)).version).metrics["preflight"]
    report = PreflightReport.model_validate(expected)
    assert report.fits and report.num_parameters["model"] > 0 and report.rows is not None


def test_training_that_cannot_fit_is_refused_before_weights_are_fetched(store, stage, monkeypatch):
    trained_by(monkeypatch, lambda job, on_log, on_checkpoint: {})
    monkeypatch.setattr(store, "fetch_model", lambda ref: pytest.fail("fetched"))
    small = RunContext(training=LaunchConfig(tracker="none", device_memory_gib=0.01))
    with pytest.raises(ValueError, match="GiB"):
        stage.model_copy(update={"run": small}).make(Session(store))


def test_training_that_tells_no_history_has_the_lines_that_it_logged(store, stage, monkeypatch):
    def trainer(job, on_log, on_checkpoint):
        on_log({"step": 1, "num_steps": 1, "loss": 2.0})
        return {}

    trained_by(monkeypatch, trainer)
    ref = stage.make(Session(store))
    assert store.manifest(DATASET, ref.version).metrics["history"] == [{"step": 1, "num_steps": 1, "loss": 2.0}]


def test_training_that_fails_keeps_its_log_and_its_resume_points(store, stage, monkeypatch):
    def dies(job, on_log, on_checkpoint):
        on_checkpoint(point(job, 4))
        raise TrainingDied("grpo: killed")

    trained_by(monkeypatch, dies)
    with pytest.raises(TrainingDied):
        stage.make(Session(store))
    version = stage.derivation(store).version
    assert store.find(DATASET, version) is None
    assert store.get_blob(DATASET, version, "training.log") == b"said by the process\n"
    assert store.checkpoint_newest(DATASET, version) == "step-00000004"


def test_training_hands_on_the_policies_that_it_keeps_and_those_that_a_killed_run_left(store, stage, monkeypatch):
    taken: list[tuple[int, bytes]] = []

    def take(folder: Path, update: int) -> None:
        taken.append((update, (folder / "model.safetensors").read_bytes()))

    def keep(job: TrainingJob, update: int) -> None:
        assert job.kept
        folder = job.kept / kept_name(update)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes([update]))

    class Keeping(SomeStage):
        def make(self, session: Session) -> ModelRef:
            return run_training(self, session, SFTConfig(max_tokens=64), EXAMPLES, "sft", self.policy, on_policy=take)

    def killed(job, on_log, on_checkpoint):
        keep(job, 2)
        raise KeyboardInterrupt  # before whoever started it heard of the policy

    def ends(job, on_log, on_checkpoint):
        assert taken == [(2, b"\x02")]  # before anything is trained on
        keep(job, 4)
        return {}

    keeping = Keeping(run=stage.run, policy=stage.policy)
    trained_by(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        keeping.make(Session(store))
    trained_by(monkeypatch, ends)
    keeping.make(Session(store))
    assert taken == [(2, b"\x02"), (4, b"\x04")]
    (of_store,) = (store.cache / "training").iterdir()
    assert not list(of_store.iterdir())


def test_training_goes_on_from_the_stores_resume_point_on_another_machine(store, stage, monkeypatch, tmp_path):
    def dies(job, on_log, on_checkpoint):
        on_checkpoint(point(job, 4))
        raise TrainingDied("grpo: killed")

    found: list[list[str]] = []

    def ends(job, on_log, on_checkpoint):
        found.append(steps_of(job.checkpoint))
        assert (job.checkpoint / "step-00000004" / "model.safetensors").read_bytes() == b"\x04" * 50
        return {}

    trained_by(monkeypatch, dies)
    with pytest.raises(TrainingDied):
        stage.make(Session(store))
    elsewhere = Store(store.backend, tmp_path / "other machine")
    trained_by(monkeypatch, ends)
    ref = stage.make(Session(elsewhere))
    assert found == [["step-00000004"]]
    assert store.checkpoint_names(DATASET, ref.version) == []
    (of_store,) = (elsewhere.cache / "training").iterdir()
    assert not list(of_store.iterdir())


def test_training_of_the_same_version_in_another_store_is_another_training(store, stage, monkeypatch, tmp_path):
    found: list[list[str]] = []

    def dies(job, on_log, on_checkpoint):
        found.append(steps_of(job.checkpoint))
        point(job, len(found))
        raise TrainingDied("grpo: killed")

    elsewhere = MemoryBackend()
    elsewhere.uri = "elsewhere"
    other = Store(elsewhere, store.cache)  # type: ignore[arg-type]
    other.commit_model(derivation("models/sl"), make_tiny_model(tmp_path / "again"), metrics={}, cost={})
    assert stage.derivation(other).version == stage.derivation(store).version
    trained_by(monkeypatch, dies)
    for each in (store, other, store):
        with pytest.raises(TrainingDied):
            stage.make(Session(each))
    assert found == [[], [], ["step-00000001"]]


def test_training_goes_on_from_its_own_resume_point_where_that_is_newer(store, stage, monkeypatch):
    version = stage.derivation(store).version

    def dies(job, on_log, on_checkpoint):
        on_checkpoint(point(job, 4))
        point(job, 5)  # killed before anybody heard of it
        raise TrainingDied("grpo: killed")

    found: list[list[str]] = []
    trained_by(monkeypatch, dies)
    with pytest.raises(TrainingDied):
        stage.make(Session(store))
    assert store.checkpoint_names(DATASET, version) == ["step-00000004"]
    trained_by(monkeypatch, lambda job, *_: found.append(steps_of(job.checkpoint)) or {})
    stage.make(Session(store))
    assert found == [["step-00000004", "step-00000005"]]


def test_training_takes_the_resume_point_before_a_damaged_one_and_says_so(store, stage, monkeypatch, tmp_path, caplog):
    made_by = stage.derivation(store)
    for step in (2, 3):
        folder = point(TrainingJob(**minimal(tmp_path / "earlier")), step)
        store.checkpoint_put(DATASET, made_by.version, folder.name, folder)
    key = next(key for key in store.backend.keys("") if key.endswith("step-00000003/model.safetensors"))
    store.backend.put(key, [b"\x03" * 49 + b"!"])
    found: list[list[str]] = []
    trained_by(monkeypatch, lambda job, *_: found.append(steps_of(job.checkpoint)) or {})
    stage.make(Session(store))
    assert found == [["step-00000002"]]
    assert "step-00000003 is damaged" in caplog.text and "step-00000003/model.safetensors" in caplog.text


def minimal(folder: Path) -> dict[str, Any]:
    return {
        "kind": "grpo", "config": {}, "examples": folder, "model": folder, "output": folder, "seed": 0,
        "checkpoint": folder,
    }  # fmt: skip


def test_training_with_a_launch_that_cannot_be_fetches_nothing(store, stage, monkeypatch):
    run = RunContext(training=LaunchConfig(tracker="wandb"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="wandb is not installed"):
        stage.model_copy(update={"run": run}).make(Session(store))
    assert not (store.cache / "models").exists()


def test_training_is_called_after_its_stage_and_version(store, stage, monkeypatch):
    names: list[str] = []
    trained_by(monkeypatch, lambda job, *_: names.append(job.run_name) or {})
    ref = stage.make(Session(store))
    assert names == [f"rl/{ref.version[:12]}"]


def test_progress_is_shown_once_a_second_and_at_the_end():
    clock, shown = iter([0.0, 0.4, 0.9, 1.1, 1.2, 1.3]), Shown()
    history = History(shown, "sft", monotonic=lambda: next(clock))
    for step in range(1, 7):
        history.add({"step": step, "num_steps": 6, "loss": 1.0})
    assert shown.steps == [1, 4, 6] and len(history.lines) == 6
    assert shown.kinds == ["sft"] * 3


@pytest.mark.parametrize("count", [0, 1, 2, 7, 10, 11, 1234])
def test_thinned_history_is_even_and_keeps_its_ends(count):
    lines = [{"step": i} for i in range(count)]
    kept = [line["step"] for line in thinned(lines, 10)]
    assert len(kept) == min(count, 10) and len(set(kept)) == len(kept)
    if count:
        assert (kept[0], kept[-1]) == (0, count - 1)
    gaps = [later - earlier for earlier, later in pairwise(kept)]
    assert not gaps or max(gaps) - min(gaps) <= 1


# the copying of resume points


def given(store: Store, tmp_path: Path) -> tuple[ResumePoints, TrainingJob, Derivation]:
    made_by = derivation(DATASET)
    points = ResumePoints(store, made_by, tmp_path / "work" / "checkpoints", tmp_path / "work" / "uploads")
    return points, TrainingJob(**minimal(points.folder)), made_by


def test_resume_point_that_the_trainer_has_removed_meanwhile_is_still_copied_whole(store, tmp_path, monkeypatch):
    points, job, made_by = given(store, tmp_path)
    may_write = threading.Event()
    put = store.checkpoint_put
    monkeypatch.setattr(store, "checkpoint_put", lambda *arguments: may_write.wait(10) and put(*arguments))
    with points:
        first = point(job, 1)
        points.keep(first)
        shutil.rmtree(first)
        may_write.set()
    fetched = store.checkpoint_fetch(DATASET, made_by.version, "step-00000001", tmp_path / "fetched")
    assert (fetched / "model.safetensors").read_bytes() == b"\x01" * 50
    assert list((tmp_path / "work" / "uploads").iterdir()) == []


def test_resume_points_that_wait_are_replaced_by_the_newest(store, tmp_path, monkeypatch):
    points, job, _ = given(store, tmp_path)
    begun, may_end, written = threading.Event(), threading.Event(), list[str]()

    def slowly(dataset: str, version: str, name: str, folder: Path) -> None:
        begun.set()
        may_end.wait(10)
        written.append(name)

    monkeypatch.setattr(store, "checkpoint_put", slowly)
    with points:
        points.keep(point(job, 1))
        assert begun.wait(10)
        for step in (2, 3, 4):
            points.keep(point(job, step))
        may_end.set()
    assert written == ["step-00000001", "step-00000004"]
    assert list((tmp_path / "work" / "uploads").iterdir()) == []


def test_resume_point_that_cannot_be_copied_is_a_warning_and_later_ones_are_tried(store, tmp_path, monkeypatch, caplog):
    points, job, made_by = given(store, tmp_path)
    put, tried = store.checkpoint_put, threading.Event()

    def once_full(*arguments: Any) -> None:
        if not tried.is_set():
            tried.set()
            raise StoreUnavailable("the disk is full")
        put(*arguments)

    monkeypatch.setattr(store, "checkpoint_put", once_full)
    with caplog.at_level(logging.WARNING), points:
        points.keep(point(job, 1))
        assert tried.wait(10)
        points.keep(point(job, 2))
    assert store.checkpoint_names(DATASET, made_by.version) == ["step-00000002"]
    assert "step-00000001" in caplog.text and "the disk is full" in caplog.text and "goes on" in caplog.text


def test_resume_point_that_is_gone_before_it_was_heard_of_is_passed_over(store, tmp_path, caplog):
    points, job, made_by = given(store, tmp_path)
    with points:
        gone = point(job, 1)
        shutil.rmtree(gone)
        points.keep(gone)
    assert store.checkpoint_newest(DATASET, made_by.version) is None and "step-00000001" in caplog.text


def test_newest_wins_works_on_one_thing_at_a_time():
    at_work, most = 0, 0
    lock = threading.Lock()

    def work(path: Path) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.01)
        with lock:
            at_work -= 1

    with NewestWins(work) as newest:
        for number in range(50):
            newest.give(Path(str(number)))
    assert most == 1


# curves


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_draws_every_number_of_a_line_over_its_step(tmp_path):
    curves = TensorBoardCurves(tmp_path / "rl" / "abc")
    for step in range(3):
        curves.add({"step": step, "num_steps": 3, "loss": 1.5 - step, "note": "text", "eval": None, "flag": True})
    curves.close()
    assert scalars(tmp_path / "rl" / "abc", "loss") == [(0, 1.5), (1, 0.5), (2, -0.5)]
    with pytest.raises(KeyError):
        scalars(tmp_path / "rl" / "abc", "flag")


def test_tensorboard_shows_a_step_once_though_a_resumed_training_repeats_it(tmp_path):
    killed = TensorBoardCurves(tmp_path)
    for step in (1, 2, 3, 4):
        killed.add({"step": step, "loss": float(step)})
    resumed = TensorBoardCurves(tmp_path)  # the first one was killed: nobody closed it
    for step in (3, 4, 5):
        resumed.add({"step": step, "loss": float(step)})
    resumed.close()
    assert scalars(tmp_path, "loss") == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_run_of_a_tracker_is_told_a_step_once_though_a_resumed_training_repeats_it(tmp_path):
    class Run:
        def __init__(self) -> None:
            self.told: list[tuple[int, dict]] = []
            self.finished = False

        def log(self, values: dict, step: int) -> None:
            self.told.append((step, values))

        def finish(self) -> None:
            self.finished = True

    run = Run()
    killed = RunCurves(run, tmp_path / "run" / "told")
    for step in (0, 1, 2):
        killed.add({"step": step, "loss": float(step)})
    resumed = RunCurves(run, tmp_path / "run" / "told")
    for step in (1, 2, 3):
        resumed.add({"step": step, "loss": float(step)})
    resumed.close()
    assert run.told == [(0, {"loss": 0.0}), (1, {"loss": 1.0}), (2, {"loss": 2.0}), (3, {"loss": 3.0})]
    assert run.finished


def test_tracker_that_fails_is_left_and_the_training_goes_on(capsys):
    class Broken:
        calls = 0

        def add(self, line: dict) -> None:
            Broken.calls += 1
            raise ConnectionResetError("the tracker's own process is gone")

        def close(self) -> None:
            raise ConnectionResetError

    curves = Dispensable(Broken())
    for step in range(3):
        curves.add({"step": step})
    curves.close()
    assert Broken.calls == 1
    assert "ConnectionResetError: the tracker's own process is gone; no more curves" in capsys.readouterr().err


def test_numbers_of_a_line_are_those_that_can_be_drawn():
    line = {"step": 1, "num_steps": 2, "loss": 1, "kl": 0.5, "nan": float("nan"), "none": None, "ok": True, "text": "a"}
    assert numbers(line) == {"loss": 1.0, "kl": 0.5}
