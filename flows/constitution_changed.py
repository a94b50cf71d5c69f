"""What follows a change of a constitution: its plan for everyone to see, an approval, and the alignment run.

The tag of the constitution in the store is the truth; the event only says that it is time to look. So a lost event is
made good by the next schedule, and ten events of one move end as one run (`flows/in_hand.py`).
"""

from typing import Literal

from prefect import State, flow
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed
from pydantic import Field

from constitutions import load_constitution
from flows.amendment_page import show_decision, show_plan
from flows.approval import ask
from flows.children import run_child
from flows.config import AlignConfig, ConfigError
from flows.in_hand import go_on_with, is_cancelled, run_in_hand, withdraw_older
from flows.plan import make_plan, summary
from tasks.decisions import Subject, decide, decided
from tasks.publish import Published, newest
from tasks.schema import Settings
from tasks.stage import StageFailed
from tasks.store import Store
from tasks.store.identity import digest

Policy = Literal["auto", "approve", "notify"]


class Change(Settings):
    """Which move of a constitution's tag to follow."""

    constitution: str = ""
    """Id of the constitution; empty: of the file that the config names."""
    sequence: int = Field(0, ge=0)
    """Number of the move; 0: the newest."""


class AmendmentConfig(Settings):
    """What follows a change."""

    policy: Policy = "approve"
    """auto: the run starts at once. approve: a person is asked first. notify: the plan is shown, nothing runs."""
    approval_hours: int = Field(72, ge=1)
    """How long an answer is waited for; unanswered, the next event or schedule asks again."""
    align: AlignConfig
    """The run that follows; the published version takes the place of its constitution."""


@flow(name="constitution-changed")
def constitution_changed(change: Change, config: AmendmentConfig) -> State:
    """Show what the newest text of a constitution means for a run, ask, and run it: once for each move."""
    store = Store.open(config.align.run.store)
    found = find(store, change, config)
    if found is None:
        return ended("Unpublished", f"nothing is published in {store.uri}; see ./solon constitution publish")
    if 0 < change.sequence < found.move.sequence:
        return ended("Superseded", f"move {change.sequence}: there is move {found.move.sequence} meanwhile")
    subject = subject_of(found, config.align)
    other = run_in_hand(f"{subject.constitution} move {subject.sequence}", f"{subject.key}:{config.policy}")
    if other:
        return ended("Handled", go_on_with(other))
    withdraw_older(subject.constitution, subject.sequence)
    return amend(store, found, subject, config)


def amend(store: Store, found: Published, subject: Subject, config: AmendmentConfig) -> State:
    """The plan, the decision and the run of one move. A decision that the store has is not asked for again."""
    align, decision = follow(found, config.align), decided(store, subject)
    if decision is None or config.policy == "notify":
        plan = make_plan(align)
        show_plan(plan, found)
        if plan.is_fresh or config.policy == "notify":
            return ended("Planned", summary(plan))
        if config.policy == "approve":
            answer = ask(subject, plan, found, config.approval_hours)
            decision = decide(store, subject, answer.word, answer.words)
    if decision:
        show_decision(subject, decision)
    if decision and decision.word == "rejected":
        return ended("Rejected", f"by {decision.by}; nothing runs")
    return run_align(subject, align)


def run_align(subject: Subject, align: AlignConfig) -> State:
    """The run that follows, created, found at work, or retried; a cancelled one is not started again by an event."""
    try:
        run = run_child(f"align/{preset()}", subject.key, {"config": align.model_dump(mode="json", exclude_none=True)})
    except StageFailed as error:
        if is_cancelled(subject.key):
            return Cancelled(message=str(error))
        raise
    return ended("Aligned", f"run {run.name!r} followed move {subject.sequence} of {subject.constitution}")


def find(store: Store, change: Change, config: AmendmentConfig) -> Published | None:
    """The newest move of the constitution; None where there is none, and none was spoken of.

    Raises: ConfigError: the store does not have the move.
    """
    name = change.constitution or load_constitution(config.align.constitution).id
    found = newest(store, name)
    if change.sequence > (found.move.sequence if found else 0):
        known = f"its newest is {found.move.sequence}" if found else "it has none"
        raise ConfigError(
            f"change.sequence: {change.sequence}, but {known} of constitution {name!r} in {store.uri}; was it "
            "published to another store than config.align.run.store?"
        )
    return found


def follow(found: Published, align: AlignConfig) -> AlignConfig:
    """The run's config with the published version in the place of its constitution."""
    return align.model_copy(update={"constitution_version": found.move.version})


def subject_of(found: Published, align: AlignConfig) -> Subject:
    """What is to be decided: whether this config runs under this move."""
    return Subject(
        constitution=found.constitution.id,
        sequence=found.move.sequence,
        version=found.move.version,
        run=digest(follow(found, align).model_dump(mode="json")),
    )


def preset() -> str:
    """Name of this run's deployment: `constitution-changed/micro` starts `align/micro`.

    Raises: ConfigError: the flow was called as a function.
    """
    if not deployment.get_name():
        raise ConfigError(
            "constitution-changed: only a run of a deployment can ask and start another; start it in the UI or with "
            "`prefect deployment run constitution-changed/micro`, or run ./solon plan and ./solon align"
        )
    return str(deployment.get_name())


def ended(name: str, message: str) -> State:
    """Done, and how: the UI shows the name as the run's state."""
    return Completed(name=name, message=message)
