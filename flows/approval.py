"""Asking a person about a plan: the run is suspended, and Prefect's UI shows the form until somebody answers.

No process waits meanwhile. The run begins again when it is answered, and `ask` then returns the answer at once.
"""

from typing import Literal
from uuid import UUID

from prefect import suspend_flow_run
from prefect.client.orchestration import get_client
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import ConfigDict, Field

from flows.amendment_page import form_text
from tasks.decisions import Subject, Word
from tasks.planning import Plan
from tasks.publish import Published

HOUR_SECONDS = 3600


class Approval(RunInput):
    """The form's fields."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    decision: Literal["approve", "reject"] = Field(json_schema_extra={"position": 0})
    """approve: the run starts. reject: nothing runs, and nobody is asked again about this change."""
    by: str = Field(min_length=1, max_length=100, json_schema_extra={"position": 1})
    """Your name."""
    note: str = Field("", max_length=1000, json_schema_extra={"position": 2})
    """Why; kept with the decision."""

    @property
    def word(self) -> Word:
        return "approved" if self.decision == "approve" else "rejected"

    @property
    def words(self) -> str:
        """Who, and why."""
        return f"{self.by}: {self.note}" if self.note else self.by


def ask(subject: Subject, plan: Plan, found: Published, hours: int) -> Approval:
    """The answer of a person. The first call of a run ends its process; the run fails when nobody answers in time."""
    form = Approval.with_initial_data(description=form_text(plan, found))
    return suspend_flow_run(
        wait_for_input=form, key=f"move-{subject.sequence}-{times_asked()}", timeout=hours * HOUR_SECONDS
    )


def times_asked() -> int:
    """How often this run ended before: a form of a Retry needs another key, one that was just answered the same."""
    with get_client(sync_client=True) as client:
        return sum(state.is_final() for state in client.read_flow_run_states(UUID(flow_run.get_id())))
