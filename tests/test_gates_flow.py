"""A run stops at a gate that does not hold, and says what was measured, expected and is to be done."""

import logging

import pytest

from flows.gates import GateFailed, require_gates
from tasks.gates import GatesConfig
from tasks.gates.start import helpful_only
from tasks.schema import DatasetRef
from tasks.stage import StageFailed

REF = DatasetRef(dataset="gates", version="a" * 32, content_hash="b" * 64, rows=2)


class Knows:
    """A run or plan that knows these rows."""

    def __init__(self, rows):
        self.rows = rows

    def known_rows(self, ref, row_type):
        return self.rows


def gate(num_refusing, **config):
    return helpful_only(num_refusing, 100, GatesConfig(**config))


def test_gates_that_hold_let_the_run_go_on():
    require_gates(Knows([gate(0), gate(1)]), REF)


def test_gates_that_a_plan_does_not_know_yet_let_it_go_on():
    require_gates(Knows(None), REF)


def test_gate_that_does_not_hold_stops_the_run_with_figure_limit_and_advice():
    with pytest.raises(GateFailed) as caught:
        require_gates(Knows([gate(0), gate(60)]), REF)
    said = str(caught.value)
    for part in ("1 of 2", "gates/aaaaaaaaaaaa", "helpful_only: ", "60 of 100", "at most 20%", "models.helpful_only"):
        assert part in said
    assert isinstance(caught.value, StageFailed)


def test_every_gate_that_failed_is_named():
    rows = [gate(60), helpful_only(3, 3, GatesConfig())]
    with pytest.raises(GateFailed, match=r"(?s)60 of 100.*Only 3 red-team completions, at least 20"):
        require_gates(Knows(rows), REF)


def test_gate_that_only_warns_goes_to_the_log(caplog):
    logging.getLogger("prefect").propagate = True
    with caplog.at_level(logging.WARNING):
        require_gates(Knows([gate(60, on_failure="warn")]), REF)
    assert "60 of 100" in caplog.text
