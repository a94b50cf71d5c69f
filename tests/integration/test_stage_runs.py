"""Stages as runs of their own deployments, with a real server and a real worker: the first four of an alignment.

All that may happen to them, and the whole alignment with vLLM, is `python -m tests.faults.orchestration`.
"""

import pytest

from flows.children import state_of
from tasks.store import Store
from tests.faults.orchestration import Case, Trial, make_once, play, small_case, stack_with_stages


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stack_with_stages(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="module")
def made(stack, tmp_path_factory):
    """The alignment as it is when nothing happens."""
    return make_once(stack, small_case(tmp_path_factory.mktemp("made")))


def contents(case: Case) -> dict[str, list[tuple[str, str]]]:
    """Versions and content hashes of every dataset."""
    store = Store.open(case.config.run.store)
    datasets = ("constitutions", "prompts", "completions", "gates")
    return {name: [(m.version, m.content_hash) for m in store.versions(name)] for name in datasets}


def test_stage_runs_make_the_versions_of_a_run_in_one_process(stack, made, tmp_path):
    case = small_case(tmp_path)
    context = case.config.run.model_copy(update={"executor": "inline"})
    inline = Case(case.deployment, case.config.model_copy(update={"run": context}), case.stage, case.dataset)
    assert contents(make_once(stack, inline)) == contents(made)
    assert all(len(versions) == 1 for versions in contents(made).values())


def test_stage_that_failed_is_all_that_a_retry_runs_again(stack, made, tmp_path):
    trial = Trial(stack, made.in_store(tmp_path / "store"), "fails once")
    trial.order("fail")
    (trial.orders / "hold-respond").unlink()
    trial.settle(trial.run)
    assert (trial.line.run, trial.line.stage) == ("Failed", "Failed")
    assert "respond/stage" in (state_of(stack.read(trial.run)).message or "")
    line = trial.complete()
    assert line.end == "Completed" and line.starts == 2 and not line.twice
    assert set(stack.children(trial.run)) == {"respond"}, "what the store has needs no run"
    (manifest,) = Store.open(trial.case.config.run.store).versions("completions")
    assert manifest.cost["rows_kept"] > 0


@pytest.mark.parametrize(
    "event",
    [
        "kill -9 stage",
        "cancel, no worker",
        pytest.param("kill -9 server", marks=pytest.mark.long),
        pytest.param("second run", marks=pytest.mark.long),
    ],
)
def test_stage_run_survives(stack, made, tmp_path, event):
    line = play(stack, made, event, tmp_path / "store")
    assert line.is_well, str(line)
