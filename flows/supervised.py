"""The supervised stage (section 3): completions, critique and revision, and the policy that learns from them."""

from typing import NamedTuple

from flows.config import AlignConfig
from flows.gates import require_gates
from flows.given import Given
from flows.rounds import revisions_of
from flows.runner import StageRunner
from tasks.respond import RespondStage
from tasks.schema import DatasetRef, ModelRef
from tasks.sft import SFTStage
from tasks.start_gates import StartGatesStage


class Supervised(NamedTuple):
    """What the supervised stage makes."""

    completions: DatasetRef
    gates: DatasetRef
    revisions: DatasetRef
    improvements: DatasetRef | None
    policy: ModelRef
    along_the_way: dict[int, ModelRef]
    """Earlier policies of the same training, by the optimizer steps behind them."""


def learn_from_revisions(run: StageRunner, config: AlignConfig, given: Given) -> Supervised:
    """Red-team prompts -> completions -> revisions -> SL policy."""
    completions = run.dataset(
        RespondStage(run=config.run, prompts=given.prompts, helpful_only=given.helpful_only, config=config.respond)
    )
    gates = run.dataset(
        StartGatesStage(run=config.run, prompts=given.prompts, completions=completions, config=config.gates)
    )
    require_gates(run, gates)
    revisions, improvements = revisions_of(run, config, given, completions)
    sft = SFTStage(
        run=config.run,
        prompts=given.prompts,
        completions=completions,
        revisions=revisions,
        pretrained=given.pretrained,
        config=config.sft,
    )
    training = run.keeping(sft, config.keep)
    policy = run.model(training)
    return Supervised(completions, gates, revisions, improvements, policy, run.kept_policies(training))
