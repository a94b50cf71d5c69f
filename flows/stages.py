"""A flow for each stage, in the paper's order. Each has a deployment of its own."""

from prefect import Flow, flow

from flows.execution import execute
from tasks.assess import AssessStage
from tasks.collect import PromptsStage
from tasks.compare import CompareStage
from tasks.constitution import ConstitutionStage
from tasks.evaluate import EvaluateStage
from tasks.human_matches import HumanMatchesStage
from tasks.improve import ImproveStage
from tasks.judge import JudgeStage
from tasks.label import LabelStage
from tasks.label_gates import LabelGatesStage
from tasks.leakage import LeakageStage
from tasks.match import MatchStage
from tasks.preferences import PreferencesStage
from tasks.probes import ProbeStage
from tasks.question_sets import QuestionSetStage
from tasks.questions import QuestionsStage
from tasks.report import ReportStage
from tasks.respond import RespondStage
from tasks.revise import ReviseStage
from tasks.reward import HeldOutRewardStage, RewardStage
from tasks.rl import RLStage
from tasks.sample import SampleStage
from tasks.schema import DatasetRef, ModelRef
from tasks.sft import SFTStage
from tasks.start_gates import StartGatesStage


@flow(name="constitution", flow_run_name="constitution")
def constitution(stage: ConstitutionStage) -> DatasetRef | ModelRef:
    """Keep one immutable copy of the principles."""
    return execute(stage)


@flow(name="prompts", flow_run_name="prompts")
def prompts(stage: PromptsStage) -> DatasetRef | ModelRef:
    """Gather red-team, helpful and held-out prompts."""
    return execute(stage)


@flow(name="question_set", flow_run_name="question set {stage.config.name}")
def question_set(stage: QuestionSetStage) -> DatasetRef | ModelRef:
    """Questions whose right answers are known."""
    return execute(stage)


@flow(name="respond", flow_run_name="respond")
def respond(stage: RespondStage) -> DatasetRef | ModelRef:
    """Initial completions by the helpful-only model (section 3.1)."""
    return execute(stage)


@flow(name="start_gates", flow_run_name="start gates")
def start_gates(stage: StartGatesStage) -> DatasetRef | ModelRef:
    """Is the start model helpful only, and are held-out prompts held out?"""
    return execute(stage)


@flow(name="revise", flow_run_name="revise")
def revise(stage: ReviseStage) -> DatasetRef | ModelRef:
    """Critique and revision, several rounds (section 3.1)."""
    return execute(stage)


@flow(name="improve", flow_run_name="improve")
def improve(stage: ImproveStage) -> DatasetRef | ModelRef:
    """Is each round's revision better than the text before it?"""
    return execute(stage)


@flow(name="sft", flow_run_name="sft")
def sft(stage: SFTStage) -> DatasetRef | ModelRef:
    """Supervised finetuning on the revisions (section 3.2)."""
    return execute(stage)


@flow(name="compare", flow_run_name="compare")
def compare(stage: CompareStage) -> DatasetRef | ModelRef:
    """Pairs of completions by the SL policy (section 4.1)."""
    return execute(stage)


@flow(name="probe", flow_run_name="probe {stage.evaluator}")
def probe(stage: ProbeStage) -> DatasetRef | ModelRef:
    """What an evaluator makes of pairs whose answer is known."""
    return execute(stage)


@flow(name="label", flow_run_name="label {stage.evaluator}")
def label(stage: LabelStage) -> DatasetRef | ModelRef:
    """AI preference labels in both orders (section 4.1)."""
    return execute(stage)


@flow(name="label_gates", flow_run_name="label gates")
def label_gates(stage: LabelGatesStage) -> DatasetRef | ModelRef:
    """May these labels train anything?"""
    return execute(stage)


@flow(name="preferences", flow_run_name="preferences")
def preferences(stage: PreferencesStage) -> DatasetRef | ModelRef:
    """Harmlessness labels mixed with human helpfulness comparisons (section 4.1)."""
    return execute(stage)


@flow(name="reward", flow_run_name="reward")
def reward(stage: RewardStage) -> DatasetRef | ModelRef:
    """The reward model, the paper's preference model, on soft targets (section 4.1)."""
    return execute(stage)


@flow(name="held_out_reward", flow_run_name="held-out reward")
def held_out_reward(stage: HeldOutRewardStage) -> DatasetRef | ModelRef:
    """A second reward model, which only measures (2204.05862, section 4.2)."""
    return execute(stage)


@flow(name="rl", flow_run_name="rl {stage.config.algorithm}")
def rl(stage: RLStage) -> DatasetRef | ModelRef:
    """Reinforcement learning from AI feedback (section 4.1)."""
    return execute(stage)


@flow(name="leakage", flow_run_name="leakage")
def leakage(stage: LeakageStage) -> DatasetRef | ModelRef:
    """Are held-out prompts held out from everything that any policy learnt from?"""
    return execute(stage)


@flow(name="sample", flow_run_name="sample")
def sample(stage: SampleStage) -> DatasetRef | ModelRef:
    """One policy's completions of the held-out prompts (section 4.3)."""
    return execute(stage)


@flow(name="questions", flow_run_name="questions")
def questions(stage: QuestionsStage) -> DatasetRef | ModelRef:
    """What one model answers to a question set: accuracy and calibration (figure 9)."""
    return execute(stage)


@flow(name="judge", flow_run_name="judge")
def judge(stage: JudgeStage) -> DatasetRef | ModelRef:
    """What an evaluator makes of every policy's samples (section 4.3)."""
    return execute(stage)


@flow(name="match", flow_run_name="match by {stage.judge}")
def match(stage: MatchStage) -> DatasetRef | ModelRef:
    """Every policy against every other, by one judge (section 4.3)."""
    return execute(stage)


@flow(name="human_matches", flow_run_name="human matches")
def human_matches(stage: HumanMatchesStage) -> DatasetRef | ModelRef:
    """What people prefer of the bouts that they were asked about."""
    return execute(stage)


@flow(name="assess", flow_run_name="assess by {stage.judge}")
def assess(stage: AssessStage) -> DatasetRef | ModelRef:
    """How harmful each completion is, and what it does (section 4.3, figure 10)."""
    return execute(stage)


@flow(name="evaluate", flow_run_name="evaluate")
def evaluate(stage: EvaluateStage) -> DatasetRef | ModelRef:
    """Rates with intervals (section 4.3)."""
    return execute(stage)


@flow(name="report", flow_run_name="report")
def report(stage: ReportStage) -> DatasetRef | ModelRef:
    """One HTML page of the whole run."""
    return execute(stage)


FLOWS: dict[str, Flow[..., DatasetRef | ModelRef]] = {
    flow.name: flow
    for flow in (
        constitution, prompts, question_set, respond, start_gates, revise, improve, sft, compare, probe, label,
        label_gates, preferences, reward, held_out_reward, rl, leakage, sample, questions, judge, match,
        human_matches, assess, evaluate, report,
    )
}  # fmt: skip
"""By stage name."""
