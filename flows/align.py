"""Constitutional AI from principles to an aligned policy (Bai et al. 2022, arXiv:2212.08073, sections 3 and 4)."""

from prefect import flow
from prefect.runtime import flow_run

from flows.config import AlignConfig
from flows.evaluation import evaluate
from flows.given import gather
from flows.reinforcement import learn_from_feedback
from flows.runner import AlignResult, Made, Run, StageRunner
from flows.supervised import learn_from_revisions


@flow(name="align", flow_run_name="align seed {config.run.seed}")
def align(config: AlignConfig) -> AlignResult:
    """Red-team prompts -> revisions -> SL policy -> AI labels -> reward model -> RL policy -> figures and report."""
    config = config.model_copy(update={"run": config.run.salted(str(flow_run.id))})
    with Run(config.run) as run:
        return run.finish(constitutional_ai(run, config))


def constitutional_ai(run: StageRunner, config: AlignConfig) -> Made:
    """The method. `run` makes each stage, or plans it."""
    given = gather(run, config)
    supervised = learn_from_revisions(run, config, given)
    reinforced = learn_from_feedback(run, config, given, supervised.policy)
    return evaluate(run, config, given, supervised, reinforced)
