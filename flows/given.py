"""What a run starts from: outside models pinned to their weights, the constitution, and the prompts."""

from typing import NamedTuple

from constitutions import Constitution, load_constitution
from flows.config import AlignConfig, ConfigError
from flows.models_config import FEEDBACK
from flows.runner import StageRunner
from tasks.collect import PromptsStage
from tasks.constitution import ConstitutionStage, read_constitution
from tasks.evaluation.names import ORACLE
from tasks.micro.oracle import is_errand
from tasks.publish import DATASET
from tasks.question_sets import QuestionSetStage
from tasks.readers import pinned
from tasks.schema import DatasetRef, ModelRef, Prompt
from tasks.store import Store


class Given(NamedTuple):
    """What is there before anything is generated."""

    helpful_only: ModelRef
    pretrained: ModelRef
    evaluators: dict[str, ModelRef]
    """Feedback models by name, the first one first."""
    constitution: DatasetRef
    prompts: DatasetRef
    judges: dict[str, ModelRef]
    """Models that compare policies, by name."""
    references: dict[str, ModelRef]
    """Policies from elsewhere, by name."""
    question_sets: dict[str, DatasetRef]
    """By name: a set that cannot be read ends the run before anything is spent."""

    @property
    def feedback(self) -> ModelRef:
        """The first evaluator."""
        return self.evaluators[FEEDBACK]


def gather(run: StageRunner, config: AlignConfig) -> Given:
    """Pin the models, keep the constitution, read the prompts and the question sets.

    Raises: ConfigError: two evaluators are the same model, or the oracle cannot judge the prompts.
    """
    document = constitution_of(config).model_dump(mode="json")
    evaluators = jury(run, config)
    constitution = run.dataset(ConstitutionStage(run=config.run, document=document))
    prompts = run.dataset(PromptsStage(run=config.run, config=config.prompts))
    expect_errands(run, config, prompts)
    return Given(
        helpful_only=run.outside_model(config.models.helpful_only),
        pretrained=run.outside_model(config.models.pretrained),
        evaluators=evaluators,
        constitution=constitution,
        prompts=prompts,
        judges={judge.name: run.outside_model(judge.model) for judge in config.models.judges} or evaluators,
        references={each.name: run.outside_model(each.model) for each in config.models.references},
        question_sets=question_sets(run, config),
    )


def expect_errands(run: StageRunner, config: AlignConfig, prompts: DatasetRef) -> None:
    """Before anything is spent, since the oracle judges last.

    Raises: ConfigError: the micro world's oracle is to judge a held-out prompt that is none of its errands.
    """
    if config.judge.evaluator != ORACLE:
        return
    held_out = [p for p in run.known_rows(prompts, Prompt) or [] if p.split == "held_out" and p.status == "ok"]
    strange = [text for p in held_out if not is_errand(text := p.messages[-1].content)]
    if strange:
        raise ConfigError(
            f"judge.evaluator is {ORACLE}, which knows the errands of the micro world only, but {len(strange)} of "
            f"{len(held_out)} held-out prompts are none, such as {strange[0]!r}: set judge.evaluator to feedback, or "
            "leave out prompts.small_talk, prompts.look_alikes and prompts of your own"
        )


def question_sets(run: StageRunner, config: AlignConfig) -> dict[str, DatasetRef]:
    """Every question set; one of the hub at the commit that it has now, which is what a stage's own run reads too."""
    given = {each.name: each.model_copy(update={"source": pinned(each.source)}) for each in config.questions.sets}
    return {name: run.dataset(QuestionSetStage(run=config.run, config=each)) for name, each in given.items()}


def constitution_of(config: AlignConfig) -> Constitution:
    """The principles that a run is given: a published version of the store, or a file.

    Raises: ConstitutionError. StoreError: there is no such version.
    """
    if not config.constitution_version:
        return load_constitution(config.constitution)
    store = Store.open(config.run.store)
    return read_constitution(store, store.manifest(DATASET, config.constitution_version).dataset_ref())


def jury(run: StageRunner, config: AlignConfig) -> dict[str, ModelRef]:
    """Every evaluator; a jury is worth something where its members are different."""
    names = {FEEDBACK: config.models.feedback} | {juror.name: juror.model for juror in config.models.jury}
    models = {name: run.outside_model(model) for name, model in names.items()}
    first: dict[str, str] = {}
    for name, model in models.items():
        other = first.setdefault(model.content_hash, name)
        if other != name:
            raise ConfigError(
                f"models.jury.{name}: {names[name]!r} is the same model as {other!r}; "
                "a second vote of one model adds nothing, name another model"
            )
    return models
