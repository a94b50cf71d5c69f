"""The base of every row and config, the references that flows pass around, and one row model per dataset.

Columns are named as TRL names them (`prompt`, `completion`, `chosen`, `rejected`). A row never leaves a
dataset silently: whatever happened to it is its `status`, and `reason` says why it is not `ok`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tasks.forms import as_form


class Frozen(BaseModel):
    """A value: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What a form is made of: fields in the order of the class, its own before those it inherits."""
        schema = handler(core)
        resolved = handler.resolve_ref_schema(schema)
        order = sorted(resolved.get("properties", {}), key=lambda name: name not in cls.__annotations__)
        as_form(resolved, order, finite=cls.model_config.get("allow_inf_nan") is False)
        return schema


class Settings(Frozen):
    """What a user may set: a value whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


Status = Literal["ok", "refused", "unparsable", "skipped", "failed"]
Kind = Literal["red_team", "helpful"]
Split = Literal["train", "held_out"]
Origin = Literal["ai", "human"]
Order = Literal["ab", "ba", "a", "b"]
LabelForm = Literal["soft", "reasoned", "score", "consistency"]
AnswerForm = Literal["soft", "reasoned"]


class Message(Frozen):
    """One turn of a conversation, in the chat format of transformers and vLLM."""

    role: Literal["system", "user", "assistant"]
    content: str


class DatasetRef(Frozen):
    """Names one committed version of a dataset; small JSON, so it may travel through Prefect."""

    dataset: str
    version: str
    content_hash: str
    rows: int


class ModelRef(Frozen):
    """Names exact model weights: a version in the store, or an outside model (`source`) pinned by revision."""

    model: str
    """`models/sl`, `models/reward`, `models/rl`, or `external`."""
    version: str
    """The store's version id; for an outside model its resolved commit or the hash of its files."""
    content_hash: str
    """What the weights are, whatever they are called: identities cite this."""
    source: str | None = None
    """Hub name or folder of an outside model; None for a model of the store."""


PENDING = "pending:"
"""What the content hash of a reference begins with in a plan, where the result is not made yet."""


def is_pending(content_hash: object) -> bool:
    """Whether a content hash stands for a result that a plan only expects."""
    return isinstance(content_hash, str) and content_hash.startswith(PENDING)


class Row(Frozen):
    """What every row carries beside its own columns (design idea 3: three names)."""

    row_id: str
    """Which row it is: prompt, occurrence, sample, round, evaluator, order. Diffs join on it."""
    reuse_key: str
    """Hash of exactly what determined its text; a rerun may take any earlier row with this key."""
    row_hash: str = ""
    """Hash of its content; filled when the row is written."""
    status: Status = "ok"
    reason: str | None = None
    """Why the row is not `ok`, in words."""


class Prompt(Row):
    """`prompts`: a conversation that ends with a human turn."""

    prompt_id: str
    kind: Kind
    messages: list[Message]
    source: str
    """Line or row of its input, from 1."""
    split: Split
    group: str | None = None
    """A label by which evaluation is broken down."""
    raw: str | None = None
    """The text as it was read, where it could not be parsed."""


class Completion(Row):
    """`completions`: what the helpful-only model says."""

    prompt_id: str
    sample: int
    completion: str | None
    finish_reason: str | None = None
    num_tokens: int = 0


class Revision(Row):
    """`revisions`: one critique and revision of one round (section 3.1)."""

    prompt_id: str
    round: int
    principle_id: str
    principle_hash: str
    critique_request: str
    """As it was asked: with the hard constraints' and, in a reasoned critique, the four questions."""
    critique: str | None
    """None where none was asked: a critique-free revision."""
    is_helpful: bool | None = None
    """What a reasoned critique answers to its four questions; None in the other forms."""
    is_honest: bool | None = None
    is_harmless: bool | None = None
    is_free_of_toxicity: bool | None = None
    reasoning: str | None = None
    """What a reasoned critique says before its answers."""
    revision_request: str
    revision: str | None
    num_tokens: int = 0


class Comparison(Row):
    """`comparisons`: two completions of one prompt by the SL policy (section 4.1)."""

    prompt_id: str
    completion_a: str | None
    completion_b: str | None
    num_tokens: int = 0


class Label(Row):
    """`labels`: what one evaluator makes of one comparison under one question in one order (section 4.1)."""

    prompt_id: str
    comparison_id: str
    """`row_id` of the comparison."""
    evaluator: str
    slot: str
    """Which of the comparison's questions: `0` and on for drawn principles, `all`, `hard/<id>` or `consistency`."""
    sample: int = 0
    """Which of the reasonings that are averaged."""
    form: LabelForm = "soft"
    principle_id: str
    principle_hash: str
    order: Order
    """`ab`: completion_a was shown as option (A); `ba`: as option (B); `a` and `b`: that one was shown alone."""
    logprob_a: float | None
    """Log-probability of the answer that names completion_a, whichever letter it wore."""
    logprob_b: float | None
    prob_a: float | None
    """P(completion_a is better), normalised over the two answers. None for a completion that was shown alone."""
    reasoning: str | None = None
    """What was thought before the answer."""
    concludes: Literal["a", "b"] | None = None
    """Which completion the reasoning says is better; None where it does not say."""
    contradicts: bool | None = None
    """Whether the answer is another than the reasoning's conclusion; None where that cannot be told."""
    score_probs: list[float] | None = None
    """`score`: probabilities of 1 to 10 for the completion that was shown alone."""
    prob_consistent: float | None = None
    """`consistency`: P(its answer follows from its visible reasoning)."""
    num_tokens: int = 0


class Preference(Row):
    """`preferences`: what the reward model learns from; `chosen` is the likelier side."""

    prompt_id: str
    prompt: list[Message]
    chosen: str
    rejected: str
    target_prob: float
    """P(chosen is better), 0.5 to 1."""
    weight: float = 1.0
    """Of its loss, relative to the others."""
    origin: Origin
    principle_id: str | None = None
    decided_by: str = "labels"
    """`labels`, `human`, or what overrode the labels: `hard/<id>`, `priority`, `consistency`."""


class Improvement(Row):
    """`improvements`: whether one round's revision is better than what it revised, by the feedback model."""

    prompt_id: str
    round: int
    principle_id: str
    principle_hash: str
    win_prob: float | None
    """P(the revision is better than the text before it), both orders averaged; 0.5 for a no-op."""


class Probe(Row):
    """`probes`: what an evaluator makes of a pair whose answer is known before it labels anything."""

    probe: Literal["identical", "canary"]
    evaluator: str
    principle_id: str
    order: Order
    logprob_a: float | None
    logprob_b: float | None
    prob_a: float | None
    """P(a is better); of a canary a is the safe one."""


class Gate(Row):
    """`gates`: one measurement that has to hold before a label set may train anything."""

    gate: str
    evaluator: str | None
    """None for a gate that is not about one evaluator."""
    passed: bool
    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    limit: float
    num_samples: int
    says: str
    """What was measured, what was expected and what to do, in words."""


class Rollout(Row):
    """`rollouts`: one episode of PPO."""

    prompt_id: str
    update: int
    completion: str
    score: float
    kl: float
    num_tokens: int


class Sample(Row):
    """`samples`: one completion of one policy on one held-out prompt."""

    prompt_id: str
    kind: Kind
    group: str | None
    sample: int
    completion: str | None
    num_tokens: int = 0


class Judgement(Row):
    """`judgements`: what the evaluator made of one sample."""

    prompt_id: str
    kind: Kind
    group: str | None
    policy: str
    sample: int
    unit: str
    """What a bootstrap resamples: the errand in the micro world, else the prompt."""
    verdict: str | None
    """The oracle's word: `comply`, `wrong`, `refuse`, `evade` or `other`."""
    win_prob: float | None = None
    """P(this policy's completion is better than the base's), from the feedback model, both orders averaged."""
    principle_id: str | None = None


class Match(Row):
    """`matches`: two policies' completions of one held-out prompt beside each other, as one judge sees them."""

    prompt_id: str
    kind: Kind
    group: str | None
    sample: int
    judge: str
    policy_a: str
    """Whose completion comes first by its text: a pair of texts is asked about once, whoever said them."""
    policy_b: str
    prob_ab: float | None
    """P(a is better) where a was shown first."""
    prob_ba: float | None
    """P(a is better) where a was shown second."""
    prob_a: float | None
    """The mean of both; 0.5 for equal completions, which nobody is asked about."""


class Assessment(Row):
    """`assessments`: what one judge says of one sample alone."""

    prompt_id: str
    kind: Kind
    group: str | None
    policy: str
    sample: int
    judge: str
    aspect: Literal["harmfulness", "manner"]
    probs: list[float] | None
    """Of `harmfulness` the probabilities of 0 to 4; of `manner` of complying, declining with a reason, evading and
    lecturing. Over these answers alone."""


class Question(Row):
    """`question_sets`: one question with lettered options, of which one is right (figure 9)."""

    question_id: str
    category: str
    """What it is about; empty where its set does not say."""
    source: str
    """Line or row of its input, from 1."""
    prompt: str | None
    """As it is put, with its options; None where it could not be read."""
    swapped: str | None
    """With its two options in each other's place; None where it is put in one order only."""
    letters: list[str]
    """Of the options, in their order."""
    correct: int | None
    """Which of the letters is right."""
    raw: str | None = None
    """The text as it was read, where it could not be parsed."""


class Answer(Row):
    """`answers`: what one model makes of one question in one form and order."""

    question_id: str
    category: str
    form: AnswerForm
    order: Order
    """`ab`: as the question is put; `ba`: with its two options in each other's place."""
    correct: int | None
    """Which option is right."""
    probs: list[float] | None
    """Of each option, whichever letter it wore; over the options alone."""
    mass: float | None
    """Probability of all options' letters together among all tokens."""
    reasoning: str | None = None
    """What was thought before the answer."""
    num_tokens: int = 0


class Metric(Row):
    """`metrics`: one figure with its interval."""

    policy: str
    measure: str
    judge: str = ""
    """Who judged, where several judges give the same measure."""
    group: str
    value: float
    low: float
    """Lower end of the 95 % bootstrap interval."""
    high: float
    num_samples: int
    num_units: int
    """Errands or prompts that the interval's bootstrap resamples."""
