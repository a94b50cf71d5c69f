"""How a measurement becomes a row: passed, failed, too few samples to tell, or nothing of the kind to measure."""

from tasks.gates.config import GatesConfig
from tasks.gates.intervals import Measured, counted
from tasks.schema import Gate, Status
from tasks.store.identity import digest


class Verdicts:
    """Writes the rows of one evaluator, or of none."""

    def __init__(self, config: GatesConfig, evaluator: str | None = None) -> None:
        self.config = config
        self.evaluator = evaluator

    def gate(
        self, name: str, measured: Measured, limit: float, holds: bool, found: str, advice: str, samples: str
    ) -> Gate:
        """`found` says what was measured and expected; `advice` what to do where it does not hold."""
        if measured.num_samples < self.config.min_samples:
            return self.too_few(name, measured, limit, samples)
        says = f"{found}." if holds else f"{found}. {advice}"
        return self._row(name, measured, limit, holds, says, *self._ended(holds, says))

    def too_few(self, name: str, measured: Measured, limit: float, samples: str) -> Gate:
        says = (
            f"Only {measured.num_samples} {samples}, at least {self.config.min_samples} are needed to tell. Give more, "
            "or lower gates.min_samples if this run is only a trial"
        )
        return self._row(name, measured, limit, False, says, *self._ended(False, says))

    def nothing(self, name: str, limit: float, why: str) -> Gate:
        """A gate that has nothing to measure here: it holds nothing up, and says why."""
        return self._row(name, counted(0.0, 0), limit, True, why, "skipped", why)

    def _ended(self, holds: bool, says: str) -> tuple[Status, str | None]:
        return ("ok", None) if holds or self.config.on_failure == "warn" else ("failed", says)

    def _row(
        self, name: str, m: Measured, limit: float, passed: bool, says: str, status: Status, reason: str | None
    ) -> Gate:
        row_id = f"{name}/{self.evaluator}" if self.evaluator else name
        return Gate(
            row_id=row_id,
            reuse_key=digest([row_id, *m, limit, says, status]),
            status=status,
            reason=reason,
            gate=name,
            evaluator=self.evaluator,
            passed=passed,
            value=m.value,
            low=m.low,
            high=m.high,
            limit=limit,
            num_samples=m.num_samples,
            says=says,
        )
