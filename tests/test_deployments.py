"""`prefect.yaml` is whole and says the same to Prefect's own reader; the settings are ones that Prefect knows."""

import pytest
import yaml

from flows.server import ServerFailed, read_settings
from flows.stages import FLOWS

PRESETS = ("micro", "small", "paper")
POOLS_OF_STAGES = {
    "gpu-inference": {
        "respond",
        "revise",
        "improve",
        "compare",
        "probe",
        "label",
        "sample",
        "questions",
        "judge",
        "match",
        "assess",
    },
    "gpu-training": {"sft", "reward", "held_out_reward", "rl"},
}


@pytest.fixture(scope="module")
def specs() -> dict[str, dict]:
    from prefect.flows import load_flow_from_entrypoint

    from deployments.deploy import read_file

    return {f"{load_flow_from_entrypoint(spec['entrypoint']).name}/{spec['name']}": spec for spec in read_file()}


def test_deployments_are_those_of_every_flow(specs):
    by_preset = {f"{flow}/{preset}" for flow in ("align", "plan", "constitution-changed") for preset in PRESETS}
    assert set(specs) == by_preset | {f"{stage}/stage" for stage in FLOWS} | {"gc/store", "notify/notify"}


def test_deployments_stages_are_on_the_pool_that_they_need(specs):
    for stage in FLOWS:
        pool = next((pool for pool, stages in POOLS_OF_STAGES.items() if stage in stages), "cpu")
        assert specs[f"{stage}/stage"]["work_pool"]["name"] == pool
    assert {spec["work_pool"]["name"] for name, spec in specs.items() if not name.endswith("/stage")} == {"cpu"}


def test_deployments_pools_queues_and_tags_exist(specs):
    from deployments.automations import TAG
    from deployments.pools import POOLS, QUEUES

    assert {spec["work_pool"]["name"] for spec in specs.values()} == {pool.name for pool in POOLS}
    assert {spec["work_pool"]["work_queue_name"] for spec in specs.values()} <= set(QUEUES)
    assert all(TAG in spec["tags"] for spec in specs.values())


def test_deployments_one_amendment_trigger_listens(specs):
    triggers = {name: spec["triggers"][0] for name, spec in specs.items() if "triggers" in spec}
    assert [name for name, trigger in triggers.items() if trigger["enabled"]] == ["constitution-changed/micro"]
    assert set(triggers) == {f"constitution-changed/{preset}" for preset in PRESETS}


def test_deployments_default_parameters_are_what_their_flows_take(specs):
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.schema_tools import validate

    from deployments.deploy import default_parameters, definition

    for name, spec in specs.items():
        flow = load_flow_from_entrypoint(spec["entrypoint"])
        parameters = default_parameters(flow, spec)
        if parameters:
            schema = definition(flow, spec)["parameter_openapi_schema"]
            for given in [{}, *(schedule["parameters"] for schedule in spec.get("schedules", []))]:
                assert not validate({**parameters, **given}, schema, raise_on_error=True)
            taken = flow.validate_parameters(parameters)
            align = getattr(taken["config"], "align", taken["config"])
            assert getattr(align, "run", None) is None or align.run.executor == "deployments", name


def test_deployments_file_says_the_same_to_prefect(specs):
    from prefect.cli.deploy._models import PrefectYamlModel

    from deployments.deploy import FILE

    read = PrefectYamlModel.model_validate(yaml.safe_load(FILE.read_text()))
    assert [(d.entrypoint, d.name, d.work_pool.name, d.tags) for d in read.deployments] == [
        (s["entrypoint"], s["name"], s["work_pool"]["name"], s["tags"]) for s in specs.values()
    ]
    assert read.pull == []


def test_settings_are_names_that_prefect_knows():
    import prefect.settings

    settings = read_settings()
    for name in settings.keys() - {"DO_NOT_TRACK"}:
        assert getattr(prefect.settings, name).name == name
    assert settings["PREFECT_RESULTS_PERSIST_BY_DEFAULT"] == "false"


def test_settings_line_that_is_none_is_refused(tmp_path):
    path = tmp_path / "settings.env"
    path.write_text("# why\nPREFECT_A=b=c\n\nPREFECT_B\n")
    with pytest.raises(ServerFailed, match="'PREFECT_B' is no setting, expected NAME=value"):
        read_settings(path)
    path.write_text("# why\nPREFECT_A=b=c\n")
    assert read_settings(path) == {"PREFECT_A": "b=c"}
