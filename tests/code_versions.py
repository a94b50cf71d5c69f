"""What decides a stage's results besides its inputs and settings: its code. A record says which code has which version.

python -m tests.code_versions          which stages changed since the record
python -m tests.code_versions accept   record them: run it once you have decided for each changed stage whether
                                       its results change. If they do, raise its code_version first.
"""

import ast
import hashlib
import importlib
import json
import sys
from pathlib import Path

from tasks.stage import Stage

ROOT = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_name("code_versions.json")

STAGES = {
    "constitution": "tasks.constitution", "prompts": "tasks.collect", "respond": "tasks.respond",
    "revise": "tasks.revise", "sft": "tasks.sft", "compare": "tasks.compare", "label": "tasks.label",
    "preferences": "tasks.preferences", "reward": "tasks.reward",
    "held_out_reward": "tasks.reward", "rl": "tasks.rl", "sample": "tasks.sample",
    "judge": "tasks.judge", "evaluate": "tasks.evaluate", "report": "tasks.report.stage",
    "start_gates": "tasks.start_gates", "improve": "tasks.improve", "probe": "tasks.probes",
    "label_gates": "tasks.label_gates", "human_labels": "tasks.human_labels",
    "leakage": "tasks.leakage", "match": "tasks.match", "assess": "tasks.assess",
    "human_matches": "tasks.human_matches", "question_set": "tasks.question_sets", "questions": "tasks.questions",
    "capabilities": "tasks.capabilities",
}  # fmt: skip
GENERATING = (
    "respond", "revise", "improve", "compare", "probe", "label", "sample", "questions", "judge", "match", "assess",
)  # fmt: skip
BEHIND = {
    "sft": ["tasks.training.sft"],
    "reward": ["tasks.training.reward"],
    "held_out_reward": ["tasks.training.reward"],
    "rl": ["tasks.training.ppo.trainer", "tasks.training.group", "tasks.training.dpo"],
    **{name: ["tasks.serving.rendering"] for name in GENERATING},
}
"""What a stage does not import: its trainer runs in a child process, its prompts are rendered by the engine."""

WITHOUT_RESULTS = (
    "tasks.store", "tasks.stage", "tasks.chunks", "tasks.reuse", "tasks.train", "tasks.processes", "tasks.schema",
    "tasks.serving", "tasks.training.launch", "tasks.training.folders", "constitutions.load",
)  # fmt: skip
"""Modules that move, keep or serve rows and do not decide what is in them."""


def modules_of(stage: str) -> list[str]:
    """The modules of this project that decide a stage's results, by following imports, sorted."""
    waiting, found = [STAGES[stage], *BEHIND.get(stage, [])], set[str]()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting += [other for other in imports_of(name) if other not in found and decides_results(other)]
    return sorted(found)


def decides_results(name: str) -> bool:
    return not any(name == other or name.startswith(f"{other}.") for other in WITHOUT_RESULTS)


def source_of(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports_of(name: str) -> list[str]:
    """Modules of this project that a module imports anywhere, and those inside it if it is a package."""
    tree = ast.parse(source_of(name).read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names += [f"{n.module}.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return [n for n in names if n.split(".")[0] in ("tasks", "constitutions") and source_of(n).is_file()]


def digest_of(stage: str) -> str:
    """Hash of the code of `modules_of`, the templates beside it and the columns of its rows; comments do not count."""
    parts = [f"{name}:{code_of(name)}" for name in modules_of(stage)]
    row_type = getattr(stage_class(stage), "row_type", None)
    parts += [f"{name}:{field.annotation}" for name, field in row_type.model_fields.items()] if row_type else []
    if "tasks.prompts" in modules_of(stage):
        parts += [f"{path.name}:{path.read_text()}" for path in sorted((ROOT / "tasks" / "prompts").glob("*.txt"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def code_of(name: str) -> str:
    """A module as its syntax tree, without docstrings."""
    tree = ast.parse(source_of(name).read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not is_text(s)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.dump(tree)


def is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def stage_class(stage: str) -> type[Stage]:
    module = importlib.import_module(STAGES[stage])
    (found,) = [c for c in vars(module).values() if isinstance(c, type) and vars(c).get("stage") == stage]
    return found


def now() -> dict[str, dict[str, object]]:
    return {
        stage: {"code_version": stage_class(stage).code_version, "code": digest_of(stage)} for stage in sorted(STAGES)
    }


def undecided(recorded: dict[str, dict[str, object]], found: dict[str, dict[str, object]]) -> list[str]:
    """Stages whose code differs from the record's under the same code_version, or that the record lacks."""
    return [stage for stage, entry in found.items() if recorded.get(stage) != entry]


if __name__ == "__main__":
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    print("\n".join(undecided(recorded, now())) or "no stage changed since the record")
    if sys.argv[1:] == ["accept"]:
        RECORD.write_text(json.dumps(now(), indent=1) + "\n")
