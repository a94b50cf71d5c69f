"""The report as a page: whole, safe, small, and the same from the same inputs."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from constitutions import Constitution
from tasks.constitution import ConstitutionStage
from tasks.report import ReportStage, read_report
from tasks.schema import (
    DatasetRef,
)
from tasks.stage import Session
from tasks.store import Store
from tests.report_world import (
    DOCUMENT,
    HISTORIES,
    RUN,
    Outline,
    commit_model,
    derivation,
    make_run,
    other_store,
)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, ReportStage, str]:
    """One run with its report; tests only read it."""
    folder = tmp_path_factory.mktemp("reported")
    store = Store.open(str(folder / "store"), cache=folder / "cache")
    stage = make_run(store, folder)
    return store, stage, make_page(stage, store)


@pytest.fixture(scope="module")
def page(reported: tuple[Store, ReportStage, str]) -> str:
    return reported[2]


def make_page(stage: ReportStage, store: Store) -> str:
    ref = stage.make(Session(store))
    assert isinstance(ref, DatasetRef)
    return read_report(store, ref)


def test_page_nothing_is_loaded_or_run(page: str) -> None:
    outline = Outline(page)
    assert not outline.stack
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    addresses = [value or "" for _, attrs in outline.tags for key, value in attrs.items() if key in ("src", "href")]
    assert all(a.startswith(("#", "data:")) for a in addresses)
    assert "url(" not in page and "@import" not in page
    assert len(page.encode()) < 5_000_000


def test_page_red_team_text_is_folded_away(page: str) -> None:
    outline = Outline(page)
    for text in ("RED_TEAM PROMPT", "HARMFUL COMPLETION", "says red_team"):
        assert text in outline.folded_text and text not in outline.open_text
    assert "HELPFUL PROMPT" in outline.open_text and "RL says" not in outline.open_text
    assert not any("open" in attrs for tag, attrs in outline.tags if tag == "details")
    assert "May hold offensive or dangerous text" in outline.open_text


def test_page_answer_comes_before_everything_else(page: str) -> None:
    assert page.index("fell from 0.86 (base) to 0.41 (SL) and 0.05 (RL)") < page.index("<main>")


def test_page_judge_that_trained_the_policy_is_flagged(page: str) -> None:
    assert "The policy was optimised to please" in page


def test_page_headings_figures_and_tables_can_be_heard(page: str) -> None:
    outline = Outline(page)
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    pictures = [attrs for tag, attrs in outline.tags if tag == "svg" and attrs.get("aria-hidden") != "true"]
    assert len(pictures) >= 8
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] in ids for attrs in pictures)
    assert all(attrs.get("scope") for tag, attrs in outline.tags if tag == "th")
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a"]
    assert all(str(link)[1:] in ids for link in links)


def test_page_every_dataset_and_version_is_accounted_for(reported: tuple[Store, ReportStage, str]) -> None:
    store, _, page = reported
    for dataset in store.datasets():
        for manifest in store.versions(dataset):
            assert dataset == "report" or manifest.version[:10] in page, dataset


def test_page_gate_that_did_not_hold_comes_first_and_is_a_caution(page: str) -> None:
    section = page[page.index('<h2 id="gates">') : page.index('<h2 id="labels">')]
    assert section.index("Swap invariance") < section.index("Leakage")
    assert "did not hold" in section and "what leakage says" in section
    assert "A gate did not hold and the run went on" in page[: page.index('<h2 id="measures">')]


def test_page_jury_rounds_and_coverage_have_their_figures(page: str) -> None:
    text = " ".join(Outline(page).open_text.split())
    assert "feedbacksecond8100.0%" in text  # cells of the jury: both name the same side of all eight comparisons
    assert "Round: P(better)" in page
    assert "tone-1 for labels, " in text and "harm-1 for" not in text


def test_page_without_optional_material_says_what_is_missing(tmp_path: Path) -> None:
    store = other_store(tmp_path)
    stage = make_run(store, tmp_path)
    bare = {"improvements": None, "gates": {}, "probes": {}, "labels": {"feedback": stage.labels["feedback"]}}
    text = make_page(stage.model_copy(update=bare), store)
    assert "No gate was measured" in text and "Not measured: whether each round" in text
    assert ">Jury</h3>" not in text
    Outline(text)


def test_page_missing_history_and_measures_is_said(tmp_path: Path) -> None:
    store = other_store(tmp_path)
    histories: dict[str, Any] = {"sl": {}, "reward": {"history": []}, "rl": {"final": None}}
    text = make_page(make_run(store, tmp_path, histories, measured=False), store)
    assert text.count("Missing: the training logged no") == 6
    assert "shows no result" in text and "No measure was taken" in text
    Outline(text)


def test_page_shows_the_second_reward_model_that_the_policy_was_measured_by(tmp_path: Path) -> None:
    store = other_store(tmp_path)
    stage = make_run(store, tmp_path)
    agreement = {"final": {"num_held_out": 40, "held_out_models_agree": 0.9, "held_out_models_correlation": None}}
    second = commit_model(store, tmp_path, "held_out_reward", agreement)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{}")
    cites = {"held_out_reward": f"{second.model}/{second.version}"}
    made = derivation("rl", "models/rl", {}).model_copy(update={"cites": cites, "seed": 4})
    rl = store.commit_model(made, tmp_path / "other", metrics=HISTORIES["rl"], cost={})
    text = make_page(stage.model_copy(update={"rl": rl}), store)
    assert "On 40 comparisons that neither was trained on" in text and "90.0%" in text
    assert second.version[:10] in text


def test_report_same_inputs_same_page(reported: tuple[Store, ReportStage, str], tmp_path: Path) -> None:
    store, stage, page = reported
    other = other_store(tmp_path)
    again = make_run(other, tmp_path)
    assert again.derivation(other).version == stage.derivation(store).version
    made_at = re.compile(r"\d{4}-\d\d-\d\dT[\d:+]+")
    assert made_at.sub("", make_page(again, other)) == made_at.sub("", page)
    assert stage.result(store) is not None


def test_report_reworded_title_is_another_version(reported: tuple[Store, ReportStage, str]) -> None:
    store, stage, _ = reported
    reworded = Constitution.model_validate(DOCUMENT | {"title": "Another"}).model_dump(mode="json")
    other = ConstitutionStage(run=RUN, document=reworded).make(Session(store))
    changed = stage.model_copy(update={"constitution": other})
    assert changed.derivation(store).version != stage.derivation(store).version


def test_report_evaluators_in_another_order_are_another_page_and_version(
    reported: tuple[Store, ReportStage, str],
) -> None:
    store, stage, _ = reported
    turned = stage.model_copy(update={"labels": dict(reversed(stage.labels.items()))})
    assert turned.derivation(store).version != stage.derivation(store).version
