"""What an amendment changes: principles, their texts, and the share of draws that get another text."""

from itertools import pairwise
from typing import Any, Literal, get_args

from constitutions.model import LISTS, Constitution, ConstitutionError, Frozen, Principle, digest

Phase = Literal["revision", "comparison"]
PHASES: tuple[Phase, ...] = get_args(Phase)

PHASE_TEXTS: dict[Phase, tuple[str, ...]] = {
    "revision": ("critique_request", "revision_request"),
    "comparison": ("comparison_question",),
}
_HEADER = ("id", "title", "description", "bias_note")
_Value = str | float | int | bool | None


class FieldChange(Frozen):
    """One field with another value; None: it was, or is, not given."""

    name: str
    old: _Value
    new: _Value


class PrincipleChange(Frozen):
    """A principle that both constitutions hold, in other words or with other settings."""

    id: str
    """Its id in the new constitution."""
    old_id: str
    """Another one where it was renamed: the same texts under a new id, for which draws move as for a new principle."""
    fields: tuple[FieldChange, ...]

    @property
    def renamed(self) -> bool:
        return self.old_id != self.id

    def changed(self, *names: str) -> bool:
        """Whether any of these fields changed."""
        return any(change.name in names for change in self.fields)


class PhaseDiff(Frozen):
    """What the amendment means for the rows of one phase."""

    phase: Phase
    moved: bool
    """Whether the phase's slice is another one, so that its stage makes a new version."""
    num_principles: tuple[int, int]
    """How many principles serve the phase, before and after."""
    touched: float
    """Expected share of draws that get another text; the other rows are found by their keys and kept."""
    reworded: float
    """The part of `touched` whose principle stays and has another text; the rest goes to another principle."""

    def chains_touched(self, num_rounds: int) -> float:
        """Expected share of chains of `num_rounds` draws with at least one that is touched."""
        return 1 - (1 - self.touched) ** num_rounds

    def rows_touched(self, num_rounds: int) -> float:
        """Expected share of the rows of such chains that are made anew: the touched ones and what follows them."""
        return sum(self.chains_touched(number) for number in range(1, num_rounds + 1)) / num_rounds


class ConstitutionDiff(Frozen):
    """Everything by which two constitutions differ. The order of principles is no difference."""

    old_hash: str
    new_hash: str
    header: tuple[FieldChange, ...]
    """Of id, title, description and bias note; and clusters, sections and demonstrations as ids with their hashes."""
    added: tuple[Principle, ...]
    removed: tuple[Principle, ...]
    changed: tuple[PrincipleChange, ...]
    phases: tuple[PhaseDiff, ...]

    @property
    def same(self) -> bool:
        return self.old_hash == self.new_hash

    @property
    def renamed(self) -> tuple[PrincipleChange, ...]:
        return tuple(change for change in self.changed if change.renamed)

    @property
    def reweighted(self) -> tuple[PrincipleChange, ...]:
        return self._with("weight")

    @property
    def reclustered(self) -> tuple[PrincipleChange, ...]:
        return self._with("cluster")

    @property
    def switched(self) -> tuple[PrincipleChange, ...]:
        """Enabled or disabled."""
        return self._with("enabled")

    def reworded(self, phase: Phase) -> tuple[PrincipleChange, ...]:
        return self._with(*PHASE_TEXTS[phase])

    def phase(self, phase: Phase) -> PhaseDiff:
        return next(found for found in self.phases if found.phase == phase)

    def _with(self, *names: str) -> tuple[PrincipleChange, ...]:
        return tuple(change for change in self.changed if change.changed(*names))


def diff_constitutions(old: Constitution, new: Constitution) -> ConstitutionDiff:
    """What `new` changes. Principles are the same by id; removed and added with the same texts, they were renamed."""
    before, after = _by_id(old), _by_id(new)
    removed = {name: p for name, p in before.items() if name not in after}
    added = {name: p for name, p in after.items() if name not in before}
    renamed = _renamed(removed, added)
    pairs = {name: name for name in before if name in after} | renamed
    changes = [_change(before[a], after[b]) for a, b in sorted(pairs.items())]
    return ConstitutionDiff(
        old_hash=old.hash,
        new_hash=new.hash,
        header=_fields(old, new, _HEADER) + _listed(old, new),
        added=tuple(p for name, p in added.items() if name not in renamed.values()),
        removed=tuple(p for name, p in removed.items() if name not in renamed),
        changed=tuple(change for change in changes if change.fields or change.renamed),
        phases=tuple(_phase(old, new, phase) for phase in PHASES),
    )


def principles_of(constitution: Constitution, phase: Phase) -> tuple[Principle, ...]:
    """The principles that serve the phase, by id; none where no principle does."""
    try:
        return constitution.revision_principles() if phase == "revision" else constitution.comparison_principles()
    except ConstitutionError:
        return ()


def slice_of(constitution: Constitution, phase: Phase) -> str | None:
    """Hash of what the phase uses; None where no principle serves it."""
    if not principles_of(constitution, phase):
        return None
    return constitution.revision_slice() if phase == "revision" else constitution.comparison_slice()


def text_hash(principle: Principle, phase: Phase) -> str:
    """Hash of the text that the phase uses; rows keep it as `principle_hash`."""
    return principle.revision_hash if phase == "revision" else principle.comparison_hash


def demonstrations_hashes(constitution: Constitution, phase: Phase) -> tuple[str, ...]:
    """Hashes of the demonstrations that every request of the phase is preceded by, in order."""
    return tuple(shown.hash for shown in getattr(constitution, f"{phase}_demonstrations"))


def share_touched(old: Constitution, new: Constitution, phase: Phase) -> float:
    """Expected share of the phase's draws that get another text, from 0 to 1: exact, not sampled.

    A draw that goes to another principle of the same wording is not touched. With as many draws as there are rows,
    the share that is found scatters around this one as coin tosses do. Other demonstrations touch every draw.
    """
    if slice_of(old, phase) == slice_of(new, phase):
        return 0.0
    if demonstrations_hashes(old, phase) != demonstrations_hashes(new, phase):
        return 1.0
    before, after = principles_of(old, phase), principles_of(new, phase)
    if not before or not after:
        return 1.0
    pairs = [(a, b) for a in before for b in after if text_hash(a, phase) == text_hash(b, phase)]
    return max(0.0, 1 - sum(_drawn_by_both(a.id, b.id, before, after) for a, b in pairs))


def _phase(old: Constitution, new: Constitution, phase: Phase) -> PhaseDiff:
    before, after = principles_of(old, phase), principles_of(new, phase)
    texts = {p.id: text_hash(p, phase) for p in before}
    stayed = [p.id for p in after if p.id in texts and texts[p.id] != text_hash(p, phase)]
    return PhaseDiff(
        phase=phase,
        moved=slice_of(old, phase) != slice_of(new, phase),
        num_principles=(len(before), len(after)),
        touched=share_touched(old, new, phase),
        reworded=sum(_drawn_by_both(name, name, before, after) for name in stayed),
    )


def _drawn_by_both(old_id: str, new_id: str, before: tuple[Principle, ...], after: tuple[Principle, ...]) -> float:
    """Probability that a key draws `old_id` before and `new_id` after, under rendezvous hashing.

    Each principle id has one exponential variable X, and the smallest X / weight is drawn, so both draws depend on
    the same variables. Weight 0 stands for a principle that is not there. With the first draw at s and the second at
    r * s, every other principle j needs X_j > s * max(w_j, w'_j r): the density over r is that of `_integral`.
    """
    old, new = {p.id: p.weight for p in before}, {p.id: p.weight for p in after}
    others = [(old.get(name, 0.0), new.get(name, 0.0)) for name in sorted((old.keys() | new.keys()) - {old_id, new_id})]
    if old_id == new_id:
        w, v = old[old_id], new[new_id]
        return 1 / (1 + sum(max(a / w, b / v) for a, b in others))
    first, second = old[old_id], new[new_id]
    low = old.get(new_id, 0.0) / second
    high = first / new[old_id] if old_id in new else float("inf")
    return first * second * _integral(first, second, others, low, high) if low < high else 0.0


def _integral(first: float, second: float, others: list[tuple[float, float]], low: float, high: float) -> float:
    """Of 1 / (first + second r + sum of max(a, b r))^2 over r from low to high: piecewise a linear denominator."""
    kinks = sorted({a / b for a, b in others if b > 0 and low < a / b < high})
    total = 0.0
    for start, end in pairwise([low, *kinks, high]):
        inside = start + 1 if end == float("inf") else (start + end) / 2
        slope = second + sum(b for a, b in others if b * inside > a)
        level = first + sum(a for a, b in others if b * inside <= a)
        at_end = 0.0 if end == float("inf") else 1 / (level + slope * end)
        total += (1 / (level + slope * start) - at_end) / slope
    return total


def _by_id(constitution: Constitution) -> dict[str, Principle]:
    return {p.id: p for p in sorted(constitution.principles, key=lambda p: p.id)}


def _renamed(removed: dict[str, Principle], added: dict[str, Principle]) -> dict[str, str]:
    """Old id -> new id of what was removed and added again with the same texts."""
    free = dict(added)
    found = {}
    for name, principle in removed.items():
        twin = next((other for other, p in free.items() if p.hash == principle.hash), None)
        if twin is not None:
            found[name] = twin
            del free[twin]
    return found


def _change(old: Principle, new: Principle) -> PrincipleChange:
    names = tuple(name for name in Principle.model_fields if name != "id")
    return PrincipleChange(id=new.id, old_id=old.id, fields=_fields(old, new, names))


def _fields(old: Frozen, new: Frozen, names: tuple[str, ...]) -> tuple[FieldChange, ...]:
    values = [(name, getattr(old, name), getattr(new, name)) for name in names]
    return tuple(FieldChange(name=name, old=a, new=b) for name, a, b in values if a != b)


def _listed(old: Constitution, new: Constitution) -> tuple[FieldChange, ...]:
    """What a constitution holds beside principles, as one line of ids with the start of each one's hash."""
    values = [(name, _line(getattr(old, name)), _line(getattr(new, name))) for name in LISTS]
    return tuple(FieldChange(name=name.replace("_", " "), old=a, new=b) for name, a, b in values if a != b)


def _line(items: tuple[Any, ...]) -> str | None:
    return " ".join(f"{item.id}@{digest(item.model_dump())[:6]}" for item in items) or None
