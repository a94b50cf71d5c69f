"""Expected shares of draws: how many get another text under an amended constitution. Exact, not sampled."""

from itertools import pairwise

from constitutions.model import Constitution, Principle
from constitutions.phases import Phase, asked_hashes, demonstrations_hashes, principles_of, slice_of


def share_touched(old: Constitution, new: Constitution, phase: Phase) -> float:
    """Expected share of the phase's draws that get another text, from 0 to 1.

    A draw that goes to another principle of the same wording is not touched. A hard constraint is in the text of every
    critique; in comparisons it is a question of its own. With as many draws as there are rows, the share that is found
    scatters around this one as coin tosses do. Other demonstrations touch every draw, or fewer where a row shows
    only some of them (`DemonstrationsConfig.num_shown`).
    """
    if slice_of(old, phase) == slice_of(new, phase):
        return 0.0
    if demonstrations_hashes(old, phase) != demonstrations_hashes(new, phase):
        return 1.0
    before, after = principles_of(old, phase), principles_of(new, phase)
    if not before or not after:
        return 1.0
    was, now = ({p.id: asked_hashes(c, p, phase) for p in principles_of(c, phase)} for c in (old, new))
    if was == now and [p.weight for p in before] == [p.weight for p in after]:
        return 0.0
    pairs = [(a, b) for a in was for b in now if was[a] == now[b]]
    return max(0.0, 1 - sum(drawn_by_both(a, b, before, after) for a, b in pairs))


def drawn_by_both(old_id: str, new_id: str, before: tuple[Principle, ...], after: tuple[Principle, ...]) -> float:
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
