"""What people see of a change of a constitution: the plan, the principles that changed, and the decision."""

import html

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from constitutions.diff import ConstitutionDiff, PhaseDiff, diff_constitutions
from flows.commands.constitution_diff import said, settings_of, words
from flows.plan import summary, table_row
from tasks.decisions import Decision, Subject
from tasks.planning import Plan
from tasks.publish import Published

FORM_COLUMNS = ("stage", "state", "why", "to make", "seconds", "GPU hours")
MAX_TEXTS = 40
"""Reworded texts that are shown word by word; the rest are counted."""
MAX_CHARACTERS = 2000


def show_plan(plan: Plan, found: Published) -> None:
    """The plan as a table, and beside it what the amendment says."""
    create_table_artifact([table_row(stage) for stage in plan.stages], key="plan", description=summary(plan))
    create_markdown_artifact(amendment_text(found), key="amendment", description=title(found))


def show_decision(subject: Subject, decision: Decision) -> None:
    """Who decided what, and when."""
    text = f"**{decision.word}** by {escaped(decision.by)}, {decision.at} (move {subject.sequence})"
    create_markdown_artifact(text, key="decision", description=f"{subject.constitution}: {decision.word}")


def form_text(plan: Plan, found: Published) -> str:
    """What a person reads above the form: how much there is to do, what changed, and the stages that are not fresh."""
    rows = [table_row(stage) for stage in plan.stages if stage.state != "fresh"]
    columns = [name for name in FORM_COLUMNS if any(row[name] != "" for row in rows)]
    lines = [columns, ["---"] * len(columns), *([escaped(row[name]) for name in columns] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    changes = "\n".join(f"- {line}" for line in changes_of(found))
    return f"**{title(found)}**\n\n{summary(plan)}\n\n{changes}\n\n{table}\n\nThe whole plan is among the artifacts."


def title(found: Published) -> str:
    old = found.before_version[:12] if found.before_version else "nothing"
    move = found.move
    return f"{found.constitution.id}: {old} -> {move.version[:12]}, move {move.sequence} by {escaped(move.by)}"


def amendment_text(found: Published) -> str:
    """The difference in full: a line for each principle, every text that changed, and the share of draws."""
    if found.before is None:
        return "\n".join(changes_of(found))
    difference = diff_constitutions(found.before, found.constitution)
    parts = [f"- {line}" for line in changes_of(found)]
    texts = [(change.id, field) for change in difference.changed for field in change.fields if is_text(field.old)]
    for name, field in texts[:MAX_TEXTS]:
        changed = words(field.old, field.new).plain[:MAX_CHARACTERS]
        parts += ["", f"**{name}**, {field.name.replace('_', ' ')}", "", f"> {escaped(changed)}"]
    if len(texts) > MAX_TEXTS:
        parts += ["", f"and {len(texts) - MAX_TEXTS} more texts"]
    return "\n".join([*parts, "", *(share(phase) for phase in difference.phases)])


def changes_of(found: Published) -> list[str]:
    """A line for each principle that is not as it was."""
    if found.before is None:
        return [f"its first publication, {len(found.constitution.principles)} principles"]
    difference = diff_constitutions(found.before, found.constitution)
    return changes(difference) or ["the same principles as before this move"]


def changes(difference: ConstitutionDiff) -> list[str]:
    lines = [f"{p.id}: added, {settings_of(p)}" for p in difference.added]
    lines += [f"{p.id}: removed" for p in difference.removed]
    lines += [f"{change.id}: {'; '.join(said(change))}" for change in difference.changed]
    lines += [f"{field.name} of the constitution changed" for field in difference.header]
    return [escaped(line) for line in lines]


def share(phase: PhaseDiff) -> str:
    return f"- {phase.phase}: {f'{phase.touched:.1%} of the draws touched' if phase.moved else 'as it was'}"


def is_text(value: object) -> bool:
    return isinstance(value, str)


def escaped(value: object) -> str:
    """Safe inside markdown and a cell of a table."""
    return html.escape(str(value)).replace("|", "\\|").replace("\n", " ")
