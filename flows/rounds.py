"""Rounds of critique and revision, as many as make texts better (section 3.1; `improve.gate` says who decides)."""

from collections.abc import Callable

from flows.config import AlignConfig
from flows.given import Given
from flows.runner import StageRunner
from tasks.improve import ImproveStage, shortfall
from tasks.revise import ReviseStage
from tasks.schema import DatasetRef, Improvement
from tasks.stage import StageFailed

WHAT_TO_DO = (
    "the revisions are kept. Read some in the report, make critiques stronger (--preset stronger-critique), lower "
    "revise.num_rounds or improve.min_win_prob, or set improve.gate=measure, and run again"
)


def revisions_of(
    run: StageRunner, config: AlignConfig, given: Given, completions: DatasetRef
) -> tuple[DatasetRef, DatasetRef | None]:
    """The revisions to learn from, and what was measured of their rounds, where anything was.

    Raises: StageFailed: under `fail` a round, and under `stop` the first one, does not improve.
    """

    def revise(num_rounds: int) -> DatasetRef:
        return run.dataset(
            ReviseStage(
                run=config.run,
                prompts=given.prompts,
                completions=completions,
                constitution=given.constitution,
                helpful_only=given.helpful_only,
                config=config.revise.model_copy(update={"num_rounds": num_rounds}),
            )
        )

    def measure(revisions: DatasetRef) -> DatasetRef:
        return run.dataset(
            ImproveStage(
                run=config.run,
                prompts=given.prompts,
                completions=completions,
                revisions=revisions,
                constitution=given.constitution,
                feedback=given.feedback,
                config=config.improve,
            )
        )

    def missed(improvements: DatasetRef, round: int) -> str | None:
        """Why the round does not improve; None where it does, or where a plan cannot know."""
        rows = run.known_rows(improvements, Improvement)
        return None if rows is None else shortfall(rows, round, config.improve)

    if config.improve.gate == "stop":
        return rounds_that_improve(config.revise.num_rounds, revise, measure, missed)
    revisions = revise(config.revise.num_rounds)
    if config.improve.gate == "off":
        return revisions, None
    improvements = measure(revisions)
    if config.improve.gate == "fail":
        reasons = (missed(improvements, number) for number in range(config.revise.num_rounds))
        expect_none(next((reason for reason in reasons if reason), None))
    return revisions, improvements


def rounds_that_improve(
    num_rounds: int,
    revise: Callable[[int], DatasetRef],
    measure: Callable[[DatasetRef], DatasetRef],
    missed: Callable[[DatasetRef, int], str | None],
) -> tuple[DatasetRef, DatasetRef]:
    """One more round at a time: the last version whose rounds all improve, and what was measured up to the stop.

    Each version takes the rounds before from the last one. What was measured includes the round that was not used.
    """
    revisions = revise(1)
    improvements = measure(revisions)
    expect_none(missed(improvements, 0))
    for number in range(1, num_rounds):
        longer = revise(number + 1)
        improvements = measure(longer)
        if missed(improvements, number):
            break
        revisions = longer
    return revisions, improvements


def expect_none(reason: str | None) -> None:
    if reason:
        raise StageFailed(f"{reason}; {WHAT_TO_DO}")
