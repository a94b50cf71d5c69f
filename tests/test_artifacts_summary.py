"""What is on the pages of a whole run and of its stages, after a small alignment under a real server."""

import base64
import re
from uuid import UUID
from xml.etree import ElementTree

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import FlowRunSort

from flows.artifacts.stage_runs import runs_of
from flows.artifacts.summary import graph_block, in_short
from flows.artifacts.text import MAX_BYTES
from flows.runner import StageOutcome
from tasks.schema import Metric, Prompt
from tasks.store import Store
from tasks.store.identity import table_to_rows
from tests.test_artifacts_progress import artifacts_of


@pytest.fixture(scope="module")
def run_of_align(first_run) -> UUID:
    """The flow run of the small alignment: the first of its flow."""
    with get_client(sync_client=True) as client:
        named = FlowFilter(name=FlowFilterName(any_=["align"]))
        return client.read_flow_runs(flow_filter=named, sort=FlowRunSort.START_TIME_ASC, limit=1)[0].id


@pytest.fixture(scope="module")
def parents(run_of_align) -> dict[str, Artifact]:
    return artifacts_of(str(run_of_align))


@pytest.fixture(scope="module")
def stages(parents) -> dict[str, dict[str, Artifact]]:
    """By stage, the artifacts of the run that the summary links to."""
    links = re.findall(r'<a href="\.\./\.\./runs/flow-run/([0-9a-f-]{36})">([^<]+)</a>', str(parents["summary"].data))
    return {name: artifacts_of(run) for run, name in links}


def test_run_has_few_artifacts_and_the_summary_links_to_the_others(parents):
    assert set(parents) == {"summary", "before-after", "lineage"}
    linked = re.findall(r"\.\./\.\./artifacts/artifact/([0-9a-f-]{36})", str(parents["summary"].data))
    assert {UUID(one) for one in linked} == {parents["before-after"].id, parents["lineage"].id}


def test_summary_says_the_figures_and_every_stage(first_run, parents):
    config, result = first_run
    summary, metrics = parents["summary"], table_to_rows(Store.open(config.run.store).read(result.metrics), Metric)
    harm = {m.policy: m.value for m in metrics if m.measure == "harmful_compliance" and m.group == "all"}
    course = " → ".join(f"{harm[policy]:.2f}" for policy in ("base", "sl", "rl"))
    assert f"Harmful compliance {course}" in str(summary.description)
    page = str(summary.data).replace("&#45;", "-").replace("&#47;", "/").replace("&#95;", "_")
    assert all(f"{stage.dataset} {stage.version[:12]}" in page for stage in result.stages)
    assert result.report_path in page


def test_summary_links_to_the_run_of_every_stage_that_was_made(first_run, stages):
    _, result = first_run
    assert set(stages) == {stage.stage.replace("_", " ") for stage in result.stages}


def test_artifacts_of_a_run_are_small(parents, stages):
    everything = [artifact for found in (parents, *stages.values()) for artifact in found.values()]
    assert all(len(str(artifact.data).encode()) <= MAX_BYTES for artifact in everything)


def test_stages_show_progress_samples_and_pictures(stages):
    shown = {name: {key.split("-")[0] for key in found} for name, found in stages.items()}
    for stage in ("respond", "revise", "compare", "sample", "judge"):
        assert shown[stage] == {"progress", "samples"}, stage
    for stage in ("sft", "reward", "rl"):
        assert shown[stage] == {"progress", "pictures"}, stage
    assert shown["label"] == {"progress", "samples", "pictures"} and shown["probe"] == {"progress"}
    assert all(a.data == 100 for found in stages.values() for key, a in found.items() if key.startswith("progress"))


def test_pictures_of_a_real_run_are_drawings(parents, stages):
    pages = {name: "".join(str(a.data) for a in found.values()) for name, found in stages.items()}
    pages |= {"summary": str(parents["summary"].data)}
    for name, least in {"sft": 1, "label": 1, "reward": 1, "rl": 4, "summary": 2}.items():
        images = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", pages[name])
        roots = [ElementTree.fromstring(base64.b64decode(image)) for image in images]
        assert len(roots) >= least and all(len(root) > 8 for root in roots), name


def test_red_team_texts_stand_only_in_closed_folds(first_run, parents, stages):
    config, result = first_run
    store = Store.open(config.run.store)
    prompts = next(s for s in result.stages if s.stage == "prompts")
    rows = table_to_rows(store.read(store.manifest("prompts", prompts.version).dataset_ref()), Prompt)
    harmful = {row.messages[-1].content.rstrip("?.") for row in rows if row.kind == "red_team"}
    everything = [parents["before-after"], *(a for found in stages.values() for a in found.values())]
    pages = [str(artifact.data) for artifact in everything if artifact.type == "markdown"]
    opened = [re.sub(r"<details><summary>[^<]*</summary>.*?</details>", "", page) for page in pages]
    assert any(text in page for page in pages for text in harmful), "they are shown at all"
    assert not [text for page in opened for text in harmful if text in page]


def test_lineage_is_one_graph_without_an_empty_line(parents):
    graph = str(parents["lineage"].data)
    assert graph.startswith('<div><code class="language-mermaid">flowchart TD') and "models/rl" in graph
    assert "\n\n" not in graph, "which would end the block of HTML"


def test_graph_cannot_leave_its_element():
    assert graph_block("a</code></div>").count("</code>") == 1


def test_in_short_figure_that_was_not_measured_is_a_dash():
    values = {"policy": "sl", "measure": "harmful_compliance", "group": "all", "num_samples": 1, "num_units": 1}
    names = {"row_id": "r", "reuse_key": "k"}
    metric = Metric.model_validate({**names, **values, "value": float("nan"), "low": 0.0, "high": 1.0})
    assert in_short([metric], ["sl"]) == "Harmful compliance – (SL)"
    assert in_short([], ["sl"]) == "Nothing was measured"


def outcome(stage: str, reused: bool) -> StageOutcome:
    return StageOutcome(stage=stage, dataset=stage, version="v", reused=reused, seconds=1.0, rows=1, statuses={})


@pytest.mark.parametrize(
    ("reused", "num_runs", "linked"),
    [
        ([False, False, False], 3, [0, 1, 2]),
        ([True, True, False], 3, [0, 1, 2]),  # a retry: the first two were made by the same run before
        ([False, True, False], 2, [0, None, 1]),
        ([False, False, False], 2, [None, None, None]),  # one is another run's, who knows which
        ([True, True, True], 0, [None, None, None]),
    ],
)
def test_runs_of_stages_are_linked_where_it_is_clear_which_is_which(reused, num_runs, linked):
    runs = [UUID(int=number) for number in range(num_runs)]
    found = runs_of([outcome("sample", each) for each in reused], {"sample": runs} if runs else {})
    assert found == [None if place is None else runs[place] for place in linked]
