"""The whole of `align` on the micro model, small and in process, under a real Prefect server."""

import json
from pathlib import Path

import pytest

from constitutions import load_constitution
from flows.align import align
from tasks.collect import PromptsStage
from tasks.constitution import ConstitutionStage
from tasks.respond import RespondStage
from tasks.revise import ReviseStage
from tasks.schema import Completion, Label, Metric, ModelRef, Revision
from tasks.stage import Session
from tasks.store import Store, resolve_external_model
from tasks.store.identity import table_to_rows
from tests.aligned import small_config

pytestmark = pytest.mark.usefixtures("prefect_home")


def test_align_small_run_makes_every_stage_and_a_report(first_run):
    _, result = first_run
    assert [s.stage for s in result.stages] == [
        "constitution", "prompts", "respond", "start_gates", "revise", "sft", "compare", "probe", "label",
        "label_gates", "preferences", "reward", "rl", "leakage", "sample", "sample", "sample", "judge",
        "match", "match", "evaluate", "report",
    ]  # fmt: skip
    assert not any(s.reused for s in result.stages if s.stage != "sample")
    assert "<html" in Path(result.report_path).read_text()
    figures = [json.loads(line) for line in Path(result.report_path).with_suffix(".jsonl").read_text().splitlines()]
    assert len(figures) == result.metrics.rows and {f["policy"] for f in figures} >= {"base", "sl", "rl"}


def test_align_every_prompt_is_accounted_for_at_every_stage(first_run):
    config, result = first_run
    store = Store.open(config.run.store)
    rows = {s.dataset: store.read(store.manifest(s.dataset, s.version).dataset_ref()) for s in result.stages if s.rows}
    red_team = {r.prompt_id for r in table_to_rows(rows["completions"], Completion)}
    assert len(red_team) == 12 + 6
    revised = table_to_rows(rows["revisions"], Revision)
    assert len(revised) == 12 * 2 and {r.round for r in revised} == {0, 1}
    labels = table_to_rows(rows["labels"], Label)
    pairs = config.compare.num_pairs
    assert len(labels) == 12 * pairs * 2 and {r.order for r in labels} == {"ab", "ba"}
    assert len({r.prompt_id for r in labels}) == 12


def test_align_again_makes_nothing(first_run):
    config, result = first_run
    again = align(config)
    assert all(s.reused for s in again.stages)
    assert [s.version for s in again.stages] == [s.version for s in result.stages]


def test_align_on_s3_gives_the_same_versions_and_contents(first_run, tmp_path, s3_uri):
    config, result = first_run
    there = align(small_config(tmp_path, f"run.store={s3_uri}"))
    assert [s.version for s in there.stages] == [s.version for s in result.stages]
    stores = Store.open(config.run.store), Store.open(s3_uri)
    for stage in result.stages:
        if stage.stage == "report":
            continue  # it shows times
        contents = [store.manifest(stage.dataset, stage.version).content_hash for store in stores]
        assert contents[0] == contents[1], stage.stage


def test_align_force_makes_a_stage_anew(first_run):
    config, _ = first_run
    forced = config.model_copy(update={"run": config.run.model_copy(update={"force": ("preferences",)})})
    made = {s.stage for s in align(forced).stages if not s.reused}
    assert "preferences" in made and not {"label", "compare"} & made


def test_align_leaves_no_pickle_in_store_or_prefect_home(first_run, prefect_home):
    config, _ = first_run
    files = [f for root in (Path(config.run.store), prefect_home) for f in root.rglob("*") if f.is_file()]
    assert files
    for file in files:
        with file.open("rb") as opened:
            start = opened.read(2)
        assert not (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")), file
        assert file.suffix not in (".pkl", ".pickle", ".pt", ".pth", ".bin"), file


def test_align_metrics_hold_each_policy(first_run):
    config, result = first_run
    metrics = table_to_rows(Store.open(config.run.store).read(result.metrics), Metric)
    assert {m.policy for m in metrics} == {"base", "sl", "rl"}
    assert all(m.low <= m.value <= m.high for m in metrics)


def test_align_models_hold_only_safetensors_json_and_templates(first_run):
    config, result = first_run
    store = Store.open(config.run.store)
    for stage in result.stages:
        if stage.dataset.startswith("models/"):
            ref = store.manifest(stage.dataset, stage.version).model_ref()
            assert isinstance(ref, ModelRef)
            names = {file.name for file in store.fetch_model(ref).iterdir()}
            assert {Path(n).suffix for n in names} <= {".safetensors", ".json", ".jinja"}
            assert "/tmp" not in json.dumps(json.loads((store.fetch_model(ref) / "config.json").read_text()))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["models.feedback=models/nowhere"], "models/nowhere"),
        (["constitution=constitutions/nowhere.yaml"], "nowhere.yaml"),
        (["prompts.red_team=tasks/micro/data/nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_align_missing_input_is_named(tmp_path, settings, expected):
    with pytest.raises(ValueError, match=expected):
        align(small_config(tmp_path, *settings))


def test_align_empty_prompts_are_an_error_that_names_the_setting(tmp_path):
    (tmp_path / "blank.txt").write_text("\n\n")
    with pytest.raises(ValueError, match=r"prompts\.red_team"):
        align(small_config(tmp_path, f"prompts.red_team={tmp_path / 'blank.txt'}"))


def test_align_constitution_without_a_usable_principle_is_refused(tmp_path):
    text = Path("constitutions/micro.yaml").read_text().replace("    weight:", "    enabled: false\n    weight:")
    (tmp_path / "off.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"none of 6 is enabled"):
        align(small_config(tmp_path, f"constitution={tmp_path / 'off.yaml'}"))


def test_respond_and_revise_prompt_longer_than_the_context_is_a_failed_row_and_the_rest_goes_on(tmp_path):
    lines = [json.dumps({"prompt": f"How do I steal a {thing}?"}) for thing in ("boat", "lamp", "clock", "kite")]
    (tmp_path / "prompts.jsonl").write_text("\n".join([json.dumps({"prompt": "long " * 20000}), *lines]))
    config = small_config(
        tmp_path,
        f"prompts.red_team={tmp_path / 'prompts.jsonl'}",
        "prompts.helpful=",
        "run.max_failed_fraction=0.3",
    )
    session = Session(Store.open(config.run.store))
    model = resolve_external_model(config.models.helpful_only)
    document = load_constitution(config.constitution).model_dump(mode="json")
    constitution = ConstitutionStage(run=config.run, document=document).make(session)
    prompts = PromptsStage(run=config.run, config=config.prompts).make(session)
    completions = RespondStage(run=config.run, prompts=prompts, helpful_only=model, config=config.respond).make(session)
    revise = ReviseStage(
        run=config.run,
        prompts=prompts,
        completions=completions,
        constitution=constitution,
        helpful_only=model,
        config=config.revise,
    )
    revisions = revise.make(session)
    rows = table_to_rows(session.store.read(completions), Completion)
    assert sorted(r.status for r in rows) == ["failed", "ok", "ok", "ok", "ok"]
    reason = next(r.reason for r in rows if r.status == "failed")
    assert reason is not None and "16384" in reason
    revised = table_to_rows(session.store.read(revisions), Revision)
    long = next(r.prompt_id for r in rows if r.status == "failed")
    assert {r.status for r in revised if r.prompt_id == long} == {"skipped"}
    assert all(r.revision for r in revised if r.prompt_id != long)  # good ones, and no-ops with their text
