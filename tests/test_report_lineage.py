"""The report's lineage: the tree from the RL policy down, complete, safe and linked to the table of versions."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tasks.report import ReportStage, read_report
from tasks.report.lineage import OTHER_RUN, Twig, descent
from tasks.report.material import read_material
from tasks.schema import ModelRef
from tasks.stage import RunContext, Session
from tasks.store import Store
from tests.lineage_world import FEEDBACK, OUTSIDE, SEED, World, small_constitution

NASTY = "</small><script>alert(1)</script>"
RUN = RunContext(seed=SEED)
OLD = small_constitution()
NEW = small_constitution(harm_1={"critique_request": "What is harmful?"})


def report_stage(refs: dict[str, Any]) -> ReportStage:
    samples = {name.removeprefix("samples."): ref for name, ref in refs.items() if name.startswith("samples.")}
    rest = {name: ref for name, ref in refs.items() if not name.startswith("samples.")}
    labels = {"feedback": rest.pop("labels")}
    return ReportStage.model_validate(
        {"run": RUN, "samples": samples, "labels": labels, "probes": {}, "gates": {}, "matches": {}, **rest}
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("report")
    return World(Store.open(str(folder / "store"), cache=folder / "cache"), folder)


@pytest.fixture(scope="module")
def stage(world: World) -> ReportStage:
    return report_stage(world.run(OLD))


@pytest.fixture(scope="module")
def page(world: World, stage: ReportStage) -> str:
    return read_report(world.store, stage.make(Session(world.store)))


def grown(world: World, stage: ReportStage) -> Twig:
    return descent(read_material(world.store, stage.datasets(), stage.models(), RUN).manifests)


def walk(twig: Twig) -> list[Twig]:
    return [twig, *(deeper for below in twig.twigs for deeper in walk(below))]


class Section(HTMLParser):
    """The text and the links of the lineage's tree."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.depth, self.deepest, self.links, self.text = 0, 0, list[str](), ""
        start = page.index('<ul class="descent">')
        self.feed(page[start : page.index("<h3>Every version</h3>")])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.depth += tag == "ul"
        self.deepest = max(self.deepest, self.depth)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "ul"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_descent_goes_from_the_policy_to_the_prompts(world, stage):
    twig, path = grown(world, stage), []
    while twig.twigs:
        twig = twig.twigs[0]
        path.append(twig.name)
    assert path[0] == "models/reward" and path[-2:] == ["completions", "prompts"]
    assert path.index("models/sl") > path.index("labels")


def test_descent_has_each_version_once_and_links_it(world, stage):
    twigs = walk(grown(world, stage))
    whole = [(t.name, t.version) for t in twigs if not t.again]
    assert len(whole) == len(set(whole)) == 12
    assert all(t.anchor for t in twigs if t.name != "external")
    assert {t.version for t in twigs if t.name == "external"} == {OUTSIDE.version, FEEDBACK.version}


def test_page_shows_versions_hashes_commit_and_model_revisions(world, page, stage):
    section = Section(page)
    assert section.depth == 0 and section.deepest >= 9
    shown = [stage.constitution.version, stage.rl.version, stage.revisions.version, OUTSIDE.version, FEEDBACK.version]
    shown += [p.revision_hash for p in OLD.principles] + [p.comparison_hash for p in OLD.principles]
    assert all(text[:10] in section.text for text in shown)
    made_by = world.store.manifest("models/rl", stage.rl.version).code_commit  # None outside git
    assert section.text.count("commit ") == (made_by is not None)  # said once: the others are of the same
    ids = re.findall(r'id="([^"]+)"', page)
    assert section.links and all(link[1:] in ids for link in section.links)


def test_page_kept_policy_of_another_run_is_said(world, stage):
    refs = world.run(NEW, keep=stage.sl)
    kept = report_stage(refs)
    twigs = walk(grown(world, kept))
    sl = next(t for t in twigs if t.version == kept.sl.version)
    assert "few changed" in sl.facts
    assert {t.name for t in sl.twigs if t.nominal} == {"revisions", "completions", "prompts", "external"}
    other = next(t for t in sl.twigs if t.role == "keep")
    assert (other.version, other.facts, other.anchor) == (stage.sl.version, OTHER_RUN, "")


def test_page_text_from_a_manifest_is_escaped(tmp_path: Path):
    world = World(Store.open(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
    refs = world.run(OLD)
    note = {"version": "models/sl/x", "reason": NASTY}
    made = world.store.manifest("models/sl", refs["sl"].version).derivation.model_copy(update={"force": NASTY})
    folder = world.store.fetch_model(refs["sl"])
    sl = world.store.commit_model(made, folder, metrics={"kept": note}, cost={})
    assert isinstance(sl, ModelRef)
    stage = report_stage({**refs, "sl": sl})
    page = read_report(world.store, stage.make(Session(world.store)))
    assert NASTY not in page and "<script" not in page
