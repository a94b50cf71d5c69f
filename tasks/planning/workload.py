"""How much text an alignment reads, writes, learns from and stores, counted from its settings alone."""

from typing import NamedTuple

from tasks.schema import Frozen


class Workload(Frozen):
    """What is to be done. Defaults: the paper's counts; lengths and evaluation are practice."""

    red_team_prompts: int = 182_831
    helpful_prompts: int = 135_296
    helpful_samples: int = 2
    rounds: int = 4
    """Of critique and revision."""
    human_comparisons: int = 135_296
    pairs: int = 1
    """Compared samples of each red-team prompt."""
    ppo_updates: int = 1000
    ppo_batch: int = 512
    held_out_prompts: int = 5_000
    policies: int = 3
    """That are evaluated: base, SL, RL."""
    prompt_tokens: int = 150
    completion_tokens: int = 110
    request_tokens: int = 120
    """Of a principle with its framing: a critique request, a revision request or a question."""
    max_tokens: int = 1024
    """The longest row, which decides memory."""

    @property
    def row_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Tokens(NamedTuple):
    """Of a stage that asks a model."""

    read: float
    written: float


def asked(work: Workload) -> dict[str, Tokens]:
    """Tokens that each generating stage reads and writes."""
    completions = work.red_team_prompts + work.helpful_prompts * work.helpful_samples
    requests = work.red_team_prompts * work.rounds
    # a critique reads prompt, completion and request; a revision those, the critique, and its own request
    revising = requests * (2 * (work.row_tokens + work.request_tokens) + work.completion_tokens + work.request_tokens)
    pairs, held_out = work.red_team_prompts * work.pairs, work.held_out_prompts * work.policies
    judged = work.prompt_tokens + 2 * work.completion_tokens + work.request_tokens
    return {
        "respond": Tokens(completions * work.prompt_tokens, completions * work.completion_tokens),
        "revise": Tokens(revising, 2 * requests * work.completion_tokens),
        "compare": Tokens(2 * pairs * work.prompt_tokens, 2 * pairs * work.completion_tokens),
        "label": Tokens(2 * pairs * judged, 2 * pairs),  # both orders, one token each
        # each policy samples, is judged alone, and meets each other one under two questions in both orders
        "evaluate": Tokens(
            held_out * (2 * work.prompt_tokens + work.completion_tokens + work.request_tokens)
            + 2 * held_out * (work.policies - 1) * judged,
            held_out * work.completion_tokens,
        ),
    }


def trained_tokens(work: Workload) -> dict[str, float]:
    """Tokens that each training learns from; of RL those of all episodes."""
    shown = work.red_team_prompts * work.rounds + work.helpful_prompts * work.helpful_samples
    compared = work.red_team_prompts * work.pairs + work.human_comparisons
    return {
        "sft": float(shown * work.row_tokens),
        "reward": float(2 * compared * work.row_tokens),
        "rl": float(work.ppo_updates * work.ppo_batch * work.row_tokens),
    }


def stored_rows(work: Workload) -> dict[str, tuple[float, float]]:
    """(rows, tokens a row) that each stage stores."""
    completions = work.red_team_prompts + work.helpful_prompts * work.helpful_samples
    pairs, held_out = work.red_team_prompts * work.pairs, work.held_out_prompts * work.policies
    return {
        "respond": (completions, work.completion_tokens),
        "revise": (work.red_team_prompts * work.rounds, 2 * (work.completion_tokens + work.request_tokens)),
        "compare": (pairs, 2 * work.completion_tokens),
        "label": (2 * pairs, 0),
        "reward": (pairs + work.human_comparisons, work.prompt_tokens + 2 * work.completion_tokens),  # preferences
        "rl": (8 * work.ppo_batch, work.completion_tokens),  # rollouts_kept
        "evaluate": (held_out * (1 + work.policies), work.completion_tokens),
    }
