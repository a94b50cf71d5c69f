"""Two runs side by side: what is claimed of the difference, and that the page is whole and safe."""

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from constitutions import Constitution
from tasks.constitution import ConstitutionStage
from tasks.report.beside import answer, changes_of, read_side, render, spoken
from tasks.report.paired import difference, went
from tasks.schema import Judgement, Metric
from tasks.stage import Session
from tasks.store.identity import table_to_rows
from tests.report_world import DOCUMENT, NASTY, RUN, Outline, commit, make_run, other_store, rates, ratings


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """A run, and one after an amendment that made the policy more harmless and less helpful."""
    folder = tmp_path_factory.mktemp("beside")
    store = other_store(folder)
    stage = make_run(store, folder)
    first = stage.make(Session(store))
    principles = [dict(p) for p in DOCUMENT["principles"]]
    principles[0]["comparison_question"] = f"Reworded {NASTY}?"
    document = Constitution.model_validate({**DOCUMENT, "principles": principles[:-1]}).model_dump(mode="json")
    amended = ConstitutionStage(run=RUN, document=document).make(Session(store))
    rows = [*rates([0.86, 0.41, 0.05], [0.9, 0.92, 0.70]), *ratings()]
    judgements = commit(store, "judgements", less_helpful(store, stage), Judgement, {"amended": amended})
    metrics = commit(store, "metrics", rows, Metric, {"judgements": judgements})
    changed = {"constitution": amended, "judgements": judgements, "metrics": metrics}
    second = stage.model_copy(update=changed).make(Session(store))
    return store, [store.manifest(ref.dataset, ref.version) for ref in (first, second)]


def less_helpful(store, stage) -> list[Judgement]:
    """The run's judgements, but that the RL policy evades every helpful prompt."""
    rows = table_to_rows(store.read(stage.judgements), Judgement)
    return [
        row.model_copy(update={"verdict": "evade"}) if (row.policy, row.kind) == ("rl", "helpful") else row
        for row in rows
    ]


def test_beside_claims_a_change_only_where_the_difference_is_clear(sides):
    store, manifests = sides
    before, after = (read_side(store, manifest) for manifest in manifests)
    found = {c.name: c for c in changes_of(before, after)}
    assert found["Benign helpfulness"].went == "fell" and found["Harmful compliance"].went == ""
    assert found["Benign helpfulness"].difference == "−1.000 [−1.000, −1.000]"
    assert found["Harmful compliance"].difference == "+0.000 [+0.000, +0.000]"
    assert found["Elo of harmlessness, by feedback"].difference == ""
    assert found["Elo of harmlessness, by feedback"].before == found["Elo of harmlessness, by feedback"].after
    said = answer(before, after, list(found.values()))
    assert "benign helpfulness fell (0.980 [0.960, 1.000] to 0.700 [0.680, 0.720])" in said
    assert "harmful compliance did not clearly change" in said


def test_difference_is_prompt_by_prompt_on_those_in_common_and_narrower_than_the_two_runs_apart():
    rng = random.Random(0)
    before = {"m": {str(i): rng.random() for i in range(200)}}
    after = {"m": {str(i): before["m"].get(str(i), 9.0) + 0.05 for i in range(10, 250)}}
    found = difference(before, after, "m", {})
    assert found is not None and found.mean == pytest.approx(0.05) and found.num_samples == 190
    assert found.high - found.low < 1e-9 and went(found) == "rose"  # where unpaired intervals are 0.08 wide
    assert difference(before, after, "other", {}) is None and difference(before, {"m": {"x": 1.0}}, "m", {}) is None


def test_difference_resamples_whole_units():
    before = {"m": {str(i): 0.0 for i in range(40)}}
    after = {"m": {str(i): float(i < 20) for i in range(40)}}
    apart = difference(before, after, "m", {})
    together = difference(before, after, "m", {str(i): str(i // 10) for i in range(40)})
    assert apart is not None and together is not None and apart.mean == together.mean == 0.5
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_beside_page_is_whole_shows_the_amendment_and_runs_nothing(sides):
    store, manifests = sides
    page = render(*(read_side(store, manifest) for manifest in manifests))
    outline = Outline(page)
    assert not outline.stack and not {"script", "img", "iframe"} & {tag for tag, _ in outline.tags}
    assert "Reworded" in page and "<b>Removed</b>" in page and "onerror=alert(1)>" not in page
    assert len([tag for tag, _ in outline.tags if tag == "svg"]) == 4  # two judges, before and after
    assert NASTY in outline.folded_text and "says red_team" not in outline.open_text


def test_beside_same_run_twice_changes_nothing(sides):
    store, (first, _) = sides
    side = read_side(store, first)
    assert {c.went for c in changes_of(side, side)} == {""}
    page = render(side, side)
    assert "Both runs had the same constitution" in page
    assert all(each.before == each.after for each in spoken(side, side))


def test_beside_command_writes_the_page_and_says_the_answer(sides, tmp_path):
    from flows.cli import app

    store, manifests = sides
    page = tmp_path / "two.html"
    names = [manifest.version[:10] for manifest in manifests]
    uri = store.uri
    result = CliRunner().invoke(app, ["beside", *names, "--html", str(page), "--store", uri], catch_exceptions=False)
    assert result.exit_code == 0 and "benign helpfulness fell" in " ".join(result.output.split())
    assert Path(page).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
