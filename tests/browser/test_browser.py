"""Solon used with a mouse: what is tested is clicked, the API only looks on."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from flows.align import align
from tasks.forms import title
from tests.aligned import SMALL
from tests.prefect_stack import eventually

pytestmark = pytest.mark.usefixtures("machine")


def label(setting: str) -> str:
    """The labels of a setting: `revise.num_rounds` is `config/Revise/Num rounds`."""
    return "/".join(["config", *(title(part) for part in setting.split("."))])


def test_browser_small_alignment_from_the_form_to_its_artifacts(machine, pages, tmp_path):
    settings = [*SMALL, f"run.store={tmp_path / 'store'}", "run.executor=inline"]
    values = dict(setting.partition("=")[::2] for setting in settings)
    run = pages.run("align/micro", {label(name): yaml.safe_load(value) for name, value in values.items()})
    assert pages.wait_for_state(seconds=400) == "Completed"
    pages.screenshot("align-completed")
    found = pages.artifacts()
    pages.screenshot("align-artifacts")
    assert {"summary", "lineage"} <= set(found)
    pages.open_artifact("summary", says="Harmful compliance")
    pages.screenshot("align-artifact")
    assert machine.run(run).parameters["config"]["run"]["store"] == str(tmp_path / "store")


@pytest.fixture(scope="module")
def defaults(machine: Any) -> dict[str, Any]:
    """Of `align/form`, which has the form of `align/micro` and nobody who takes its runs."""
    return machine.add(align, "form", None)


def test_browser_form_untouched_sends_the_deployments_defaults(machine, pages, defaults):
    assert machine.run(pages.run("align/form")).parameters == defaults


def test_browser_form_edited_sends_what_was_typed_chosen_and_emptied(machine, pages, defaults):
    values = {
        "reward.epochs": 3,
        "reward.learning_rate": "1e-6",
        "rl.ppo.target_kl": 6,
        "constitution": "constitutions/general.yaml",
        "rl.algorithm": "dpo",
        "run.force": ["sft", "rl"],
        "sft.training.packing": True,
        "reward.head_learning_rate": "",
        "prompts.helpful": "",
    }
    sent = machine.run(pages.run("align/form", {label(name): value for name, value in values.items()})).parameters
    expected = deepcopy(defaults["config"])
    expected["reward"] |= {"epochs": 3, "learning_rate": 1e-6}
    expected["rl"]["algorithm"], expected["rl"]["ppo"]["target_kl"] = "dpo", 6
    expected["constitution"], expected["run"]["force"] = "constitutions/general.yaml", ["sft", "rl"]
    expected["sft"]["training"]["packing"] = True
    del expected["reward"]["head_learning_rate"], expected["prompts"]["helpful"]
    assert sent == {"config": expected}


REFUSED = (
    ("reward.epochs", "0", "greater than or equal to 1"),
    ("reward.epochs", "1.5", "valid value"),
    ("reward.learning_rate", "0", "0 is less than or equal to the minimum of 0"),
    ("revise.num_rounds", "", "'num_rounds' is a required property"),
    ("models.helpful_only", "", "'helpful_only' is a required property"),
    ("constitution_version", "../../x", "does not match"),
)


def test_browser_bad_values_are_refused_by_the_form_at_their_fields(machine, pages, defaults):
    before = machine.runs_of("align/form")
    form = pages.open_deployment("align/form").open_run_form()
    for setting, value, says in REFUSED:
        was = form.value(label(setting))
        form.fill(label(setting), value)
        assert says in form.refusal(label(setting))
        pages.screenshot(f"refused-{setting}-{value or 'empty'}".replace("/", "_"))
        form.fill(label(setting), was)
    assert len(machine.runs_of("align/form")) == len(before)


def test_browser_schedule_is_added_edited_and_paused(machine, pages):
    pages.open_deployment("waits/test")
    assert pages.add_schedule(2, "Hours") == "Every 2 hours"
    assert pages.edit_schedule("Every 2 hours", 3, "Days") == "Every 3 days"
    pages.screenshot("schedule")
    pages.pause_schedule("Every 3 days")
    pages.screenshot("schedule-paused")
    with machine.client() as client:
        (schedule,) = client.read_deployment_by_name("waits/test").schedules
    assert not schedule.active and schedule.schedule.interval.days == 3


@pytest.mark.long
def test_browser_schedule_fires_until_it_is_paused(pages):
    pages.open_deployment("ticks/test")
    words = pages.add_schedule(20, "Seconds")
    pages.wait_for_scheduled_run()
    pages.pause_schedule(words)


def test_browser_schedule_of_an_alignment_keeps_the_deployments_config(machine, pages):
    pages.open_deployment("align/small")
    pages.add_schedule(3, "Days")
    with machine.client() as client:
        assert [each.parameters for each in client.read_deployment_by_name("align/small").schedules] == [{}]


def test_browser_retry_runs_the_same_run_again(machine, pages, tmp_path):
    run = pages.run("fails-once/test", {"marker": str(tmp_path / "marker")})
    assert pages.wait_for_state(seconds=120) == "Failed"
    pages.retry()
    assert pages.wait_for_state("Completed", seconds=120)
    assert machine.run(run).run_count == 2
    assert pages.artifacts() == ["fails-once"]
    pages.open_artifact("fails-once", says="The second try.")


def test_browser_failed_run_is_told_by_itself(machine, pages, tmp_path):
    failed = pages.run("fails-once/test", {"marker": str(tmp_path / "marker")})
    pages.wait_for_state("Failed", seconds=120)

    def notices():
        return [run for run in machine.runs_of("notify/notify") if failed in str(run.parameters)]

    eventually(lambda: bool(notices()), "nobody was told", 60)
    (notice,) = notices()
    pages.open_run(str(notice.id)).wait_for_state("Completed", seconds=120)
    assert pages.artifacts() == ["notice"]
    pages.open_artifact("notice", says=f"{machine.base}/runs/flow-run/{failed}")
    pages.screenshot("notice")


def test_browser_cancel_ends_a_run_that_works(machine, pages):
    run = pages.run("waits/test")
    pages.wait_for_state("Running", seconds=120)
    pages.cancel()
    assert pages.wait_for_state("Cancelled", seconds=120)
    assert machine.run(run).state_name == "Cancelled"


def test_browser_question_is_answered_in_its_form(pages, tmp_path):
    run = pages.run("asks/test", {"to": str(tmp_path / "answer")})
    pages.wait_for_state("Suspended", seconds=120)
    pages.screenshot("suspended")
    pages.resume({"Decision": "approve", "Reason": "looks right"})
    assert pages.open_run(run).wait_for_state(seconds=120) == "Completed"
    assert (tmp_path / "answer").read_text() == "approve: looks right"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_pages_load_without_an_error_in_both_colour_schemes(person, defaults, scheme):
    with person(scheme) as pages:
        form = pages.open_deployment("align/form").open_run_form()
        assert form.labels("config")[:5] == [
            "Constitution",
            "Constitution version (Optional)",
            "Models",
            "Prompts",
            "Run",
        ]
        pages.screenshot(f"form-{scheme}", whole=True)
        pages.open_deployment("align/micro").screenshot(f"deployment-{scheme}")
        dark = pages.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark == (scheme == "dark") and pages.console_errors == []
