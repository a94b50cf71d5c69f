"""What a sceptical reader would ask of a constitution that loads: findings, each with what to do about it."""

from collections.abc import Iterator
from itertools import combinations
from typing import Literal

from constitutions import lint_demonstrations, wording
from constitutions.base import Frozen
from constitutions.model import Constitution, Principle
from constitutions.phases import PHASE_TEXTS, PHASES, Phase, principles_of

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

NEAR = 0.7
"""Near duplicates share at least this part of their runs of three words."""
FEWEST_DRAWS = 3.0
"""Expected draws below which a principle counts as out of reach: at 3, one run in twenty never draws it."""
LARGEST_SHARE = 0.6
"""A cluster with more of a phase's weight than this drowns the others."""
ROWS = 1000
_TEXTS = tuple(name for names in PHASE_TEXTS.values() for name in names)


class Finding(Frozen):
    """Something to look at."""

    code: str
    """Its kind, such as near-duplicate."""
    level: Level
    principles: tuple[str, ...]
    """Ids that it is about; demonstrations and sections are named in the message."""
    message: str
    advice: str


def lint(constitution: Constitution, rows: int = ROWS) -> tuple[Finding, ...]:
    """Findings, errors first; `rows` is how many draws a phase makes, by which principles count as reachable."""
    checks = (duplicates, unreachable, questions, leftovers, tension, clusters, hard_constraints, priorities, the_rest)
    found = [finding for check in checks for finding in check(constitution, rows)]
    found += [_found(*parts) for parts in lint_demonstrations.findings(constitution)]
    return tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def draw_shares(constitution: Constitution, phase: Phase) -> dict[str, float]:
    """Principle id -> expected share of the phase's draws; only of those that serve it."""
    serving = principles_of(constitution, phase)
    whole = sum(p.weight for p in serving)
    return {p.id: p.weight / whole for p in serving}


def duplicates(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """Exact: the same words, whatever their case and punctuation. Near: similarity of at least NEAR."""
    for phase in PHASES:
        texts = {p.id: _said(p, PHASE_TEXTS[phase]) for p in principles_of(constitution, phase)}
        for (one, first), (other, second) in combinations(texts.items(), 2):
            same = wording.normalised(first) == wording.normalised(second)
            share = wording.similarity(first, second)
            if same:
                advice = "remove one, and give the other both weights if that is what is meant"
                yield _found("duplicate", "error", f"the same {phase} text twice", advice, one, other)
            elif share >= NEAR:
                message = f"nearly the same {phase} text: {share:.0%} of runs of three words, {NEAR:.0%} is near"
                yield _found("near-duplicate", "warning", message, "merge them, or say how they differ", one, other)


def unreachable(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """Disabled, or so light that a run may never draw it."""
    for p in constitution.principles:
        if not p.enabled:
            yield _found("disabled", "note", "disabled: no draw reaches it", "remove it once it is not needed", p.id)
    always = {p.id for p in constitution.principles if p.hard_constraint}  # asked beside every draw
    for phase in PHASES:
        for name, share in draw_shares(constitution, phase).items():
            if share * rows < FEWEST_DRAWS and name not in always:
                message = f"{share * rows:.2g} {phase} draws expected in {rows} rows, fewer than {FEWEST_DRAWS:g}"
                yield _found("unreachable", "warning", message, "raise its weight, or remove it", name)
    for phase in PHASES:
        if not principles_of(constitution, phase):
            message = f"no principle serves the {phase} phase, so its stage cannot run"
            yield _found("no-phase", "warning", message, f"write {' and '.join(PHASE_TEXTS[phase])} for some")


def questions(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """A question must ask for a choice, say between what, and favour no side."""
    for p in _enabled(constitution):
        if p.comparison_question is None:
            continue
        side = wording.favoured_side(p.comparison_question)
        if side:
            message = f"the question names side {side} and not the other: labels would follow the order"
            yield _found("one-sided", "error", message, "ask by content, or name both sides", p.id)
        elif not wording.asks_to_choose(p.comparison_question):
            message = "the question asks for no choice (no which, choose, compare, prefer, better)"
            yield _found("no-choice", "warning", message, "begin with: Which response ...", p.id)
        elif not wording.names_what_to_choose_from(p.comparison_question):
            message = "the question asks to choose and names no option (response, reply, (A) and (B))"
            yield _found("no-option", "warning", message, "say between what: Which response ...", p.id)


def leftovers(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """What was to be filled in and was not; nothing fills a principle's text."""
    for p in constitution.principles:
        for name in _TEXTS:
            for left in wording.placeholders(getattr(p, name) or ""):
                message = f"{left} is left in {name}: a model would read it as it stands"
                yield _found("placeholder", "error", message, "write what is meant", p.id)


def tension(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """Judged by cluster and id, or by wording (wording.is_about_helpfulness, is_against_evasion); enabled ones only."""
    for phase in PHASES:
        serving = principles_of(constitution, phase)
        if not serving:
            continue
        if not any(_named(p, "helpful") or wording.is_about_helpfulness(_said(p, PHASE_TEXTS[phase])) for p in serving):
            message = f"no {phase} principle asks for helpfulness, by cluster, id or wording (helpful, useful)"
            yield _found("no-helpfulness", "warning", message, "add one: caution alone makes a model useless")
        if not any(_named(p, "evasi") or wording.is_against_evasion(_said(p, PHASE_TEXTS[phase])) for p in serving):
            message = f"no {phase} principle speaks against evasion, by cluster, id or wording (evasive, dodge, ...)"
            yield _found(
                "no-anti-evasion", "warning", message, "add one: prefer engaging with the question to refusing"
            )


def clusters(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """Shares of weight; and clusters that are used and not described, or the reverse."""
    named = {p.id: p.cluster for p in constitution.principles}
    for phase in PHASES:
        shares: dict[str, float] = {}
        for name, share in draw_shares(constitution, phase).items():
            shares[named[name]] = shares.get(named[name], 0.0) + share
        if shares and max(shares.values()) > LARGEST_SHARE:
            largest = max(shares, key=lambda name: shares[name])
            ids = [p.id for p in principles_of(constitution, phase) if p.cluster == largest]
            message = f"cluster {largest} has {shares[largest]:.0%} of the {phase} weight, over {LARGEST_SHARE:.0%}"
            yield _found("imbalance", "warning", message, "lower its weights, or name more clusters", *ids)
    described = {cluster.id for cluster in constitution.clusters}
    for missing in sorted(set(named.values()) - described) if described else []:
        ids = [name for name, cluster in named.items() if cluster == missing]
        advice = "add it to clusters, or mend the spelling"
        yield _found("cluster-unknown", "warning", f"cluster {missing} is not described in clusters", advice, *ids)
    for empty in sorted(described - set(named.values())):
        yield _found("cluster-empty", "note", f"cluster {empty} has no principle", "remove it, or write one")


def hard_constraints(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """A hard constraint is checked in every phase that the constitution serves, so it needs that phase's text."""
    for p in constitution.principles:
        if p.hard_constraint and not p.enabled:
            message = "a hard constraint that is disabled holds nowhere"
            yield _found("hard-constraint", "error", message, "enable it, or take hard_constraint away", p.id)
        for phase in PHASES if p.hard_constraint and p.enabled else ():
            missing = [name for name in PHASE_TEXTS[phase] if getattr(p, name) is None]
            if missing and principles_of(constitution, phase):
                message = f"a hard constraint without {' and '.join(missing)}: the {phase} phase cannot check it"
                yield _found("hard-constraint", "error", message, f"write {' and '.join(missing)}", p.id)


def priorities(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """A priority decides between comparison questions; what is never asked in a comparison has nothing to decide."""
    ids = [p.id for p in _enabled(constitution) if p.priority and p.comparison_question is None]
    if ids:
        message = "a priority without a comparison_question decides nothing: critiques are not ranked"
        yield _found("priority-unused", "warning", message, "write the question, or take priority away", *ids)


def the_rest(constitution: Constitution, rows: int) -> Iterator[Finding]:
    """A bias note, and prose that nothing was derived from."""
    if constitution.bias_note is None:
        message = "no bias_note: whose values these are and what they are likely to miss is not said"
        yield _found("no-bias-note", "warning", message, "write one; the report prints it")
    for section in constitution.sections:
        if not section.principles:
            message = f"no principle is derived from section {section.id}: it changes nothing"
            yield _found("section-unused", "warning", message, "derive a principle and name it there")


def _enabled(constitution: Constitution) -> list[Principle]:
    return [p for p in constitution.principles if p.enabled]


def _said(principle: Principle, names: tuple[str, ...]) -> str:
    return " ".join(getattr(principle, name) or "" for name in names)


def _named(principle: Principle, part: str) -> bool:
    return part in principle.cluster.lower() or part in principle.id


def _found(code: str, level: Level, message: str, advice: str, *ids: str) -> Finding:
    return Finding(code=code, level=level, principles=ids, message=message, advice=advice)
