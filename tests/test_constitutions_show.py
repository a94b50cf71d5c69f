"""`./solon constitution show`: clusters, shares, origins, and one principle or demonstration whole."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from constitutions import ConstitutionError, load_constitution
from flows.commands.principles import constitution_app
from tests.test_constitutions_format import BASE, DOMAIN

app = typer.Typer()
app.add_typer(constitution_app, name="constitution")


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "domain.yaml").write_text(DOMAIN)
    return tmp_path / "domain.yaml"


def show(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["constitution", "show", *map(str, arguments)])
    if isinstance(result.exception, ValueError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join("".join(" " if c in "│┃━┏┓└┘├─┼┤┴┳┻╇┡┩╭╮" else c for c in result.output).split())


def test_show_principles_with_shares_by_phase_and_origin(domain):
    text = show(domain)
    assert "a 1 100.00% 33.33% base.yaml" in text
    assert "c 1 33.33% domain.yaml" in text
    assert "b 2 base.yaml (settings changed) disabled" in text
    assert "extends base.yaml" in text and "bias: Ours." in text and "care: Care" in text


def test_show_clusters_stand_in_the_order_described_with_their_sums(tmp_path):
    text = BASE.replace("  - {id: care, title: Care}", "  - {id: general}\n  - {id: care, title: Care}")
    (tmp_path / "c.yaml").write_text(text)
    shown = show(tmp_path / "c.yaml")
    assert shown.index("Which" if "Which" in shown else "general") < shown.index("care: Care")
    assert "b 2 50.00%" in shown and "0.00% 75.00%" in shown and "100.00% 25.00%" in shown


def test_show_names_sections_and_demonstrations_without_their_texts(domain):
    text = show(domain)
    assert "section preface, 2 words: a" in text
    assert "revision demonstration r-1: 1 turns, revises" in text
    assert "comparison demonstration d-1: answer B, with reasoning, a drawn question" in text
    assert "Curt." not in text and "(A) is curt" not in text


def test_show_one_principle_prints_every_text_and_figure(domain):
    text = show(domain, "a")
    for part in ("Ca", "Ra.", "Which response is a", "revision 100.00%, comparison 33.33%", "file: base.yaml"):
        assert part in text
    assert "sections: preface" in text and load_constitution(domain).principles[0].hash in text


def test_show_one_demonstration_prints_its_texts(domain):
    text = show(domain, "d-1")
    assert "user: Tea" in text and "(A) is curt; so (B)." in text and "answer: B" in text
    assert "Curt." in show(domain, "r-1")


def test_show_json_is_the_constitution_with_figures(domain):
    document = json.loads(CliRunner().invoke(app, ["constitution", "show", str(domain), "--json"]).output)
    assert document["files"] == ["domain.yaml", "base.yaml"]
    assert document["hash"] == load_constitution(domain).hash
    by_id = {p["id"]: p for p in document["principles"]}
    assert by_id["b"]["shares"] == {"revision": None, "comparison": None} and by_id["b"]["settings_changed"]
    assert by_id["new"]["shares"]["comparison"] == pytest.approx(1 / 3) and by_id["new"]["file"] == "domain.yaml"
    one = json.loads(CliRunner().invoke(app, ["constitution", "show", str(domain), "a", "--json"]).output)
    assert one == by_id["a"]


def test_show_unknown_principle_is_an_error_that_suggests(domain):
    with pytest.raises(ConstitutionError, match=r"no principle or demonstration 'nwe'; known are new"):
        show(domain, "nwe")


def test_show_text_that_looks_like_markup_is_printed_as_it_stands(tmp_path):
    (tmp_path / "c.yaml").write_text(BASE.replace("title: The base", "title: '[bold]The[/bold] base'"))
    assert "[bold]The[/bold] base" in show(tmp_path / "c.yaml")
