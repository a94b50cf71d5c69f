"""Set-up says what a machine lacks, and its requirement files name no address."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = sorted((ROOT / "infra" / "requirements").iterdir())


@pytest.fixture
def setup_environments():
    path = ROOT / "infra" / "setup_environments.py"
    spec = importlib.util.spec_from_file_location("setup_environments", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_setup_machine_with_everything_lacks_nothing(setup_environments):
    assert setup_environments.missing_tools() == []


def test_setup_missing_compiler_is_named(setup_environments, monkeypatch):
    monkeypatch.setattr(setup_environments.shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    (problem,) = setup_environments.missing_tools()
    assert "C compiler" in problem


def test_setup_old_python_is_named_with_the_version_that_is_needed(setup_environments, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert any("3.9.1" in p and "3.11" in p for p in setup_environments.missing_tools())


def test_setup_without_uv_and_venv_names_the_package(setup_environments, monkeypatch):
    monkeypatch.setattr(setup_environments.shutil, "which", lambda name: "/bin/cc" if name in ("cc", "gcc") else None)
    monkeypatch.setattr(setup_environments, "TOOLS", Path("nowhere"))
    monkeypatch.setattr(setup_environments.importlib.util, "find_spec", lambda name: None)
    assert any("python3-venv" in p for p in setup_environments.missing_tools())


def test_setup_pips_find_links_reach_uv(setup_environments, monkeypatch):
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    assert setup_environments.uv_environment()["UV_FIND_LINKS"] == "/wheels,/more"


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_hold_no_address_and_no_local_version(path):
    text = path.read_text()
    assert "://" not in text and "+cpu" not in text
    assert not re.search(r"^--", text, re.MULTILINE)


def test_pyproject_declares_the_nine_packages():
    text = (ROOT / "pyproject.toml").read_text()
    for name in ("prefect", "torch", "transformers", "trl", "vllm", "datasets", "s3fs", "pydantic", "pytest"):
        assert re.search(rf'"{name}[><=\[]', text), name


def test_setup_unknown_tool_is_refused_and_a_known_one_has_its_requirements(setup_environments, capsys):
    assert setup_environments.make_tool("../elsewhere") == 1
    assert "lm-eval" in capsys.readouterr().err
    assert {f"{name}.txt" for name in setup_environments.TOOL_ENVIRONMENTS} <= {path.name for path in REQUIREMENTS}
