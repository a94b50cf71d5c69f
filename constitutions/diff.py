"""What an amendment changes: principles, their texts, and the share of draws that get another text."""

from typing import Any

from constitutions.model import LISTS, Constitution, Frozen, Principle, digest
from constitutions.phases import PHASE_TEXTS, PHASES, Phase, constraints_of, principles_of, slice_of, text_hash
from constitutions.shares import drawn_by_both, share_touched

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
    asked_of_all: tuple[str, ...]
    """Ids of hard constraints that are new here or reworded: every comparison is asked these beside its draw."""

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


def _phase(old: Constitution, new: Constitution, phase: Phase) -> PhaseDiff:
    before, after = principles_of(old, phase), principles_of(new, phase)
    texts = {p.id: text_hash(p, phase) for p in before}
    stayed = [p.id for p in after if p.id in texts and texts[p.id] != text_hash(p, phase)]
    return PhaseDiff(
        phase=phase,
        moved=slice_of(old, phase) != slice_of(new, phase),
        num_principles=(len(before), len(after)),
        touched=share_touched(old, new, phase),
        reworded=sum(drawn_by_both(name, name, before, after) for name in stayed),
        asked_of_all=_new_constraints(old, new, phase),
    )


def _new_constraints(old: Constitution, new: Constitution, phase: Phase) -> tuple[str, ...]:
    """By their texts: one that is only renamed was asked before."""
    known = {text_hash(c, phase) for c in constraints_of(old, phase)}
    return tuple(c.id for c in constraints_of(new, phase) if text_hash(c, phase) not in known)


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
