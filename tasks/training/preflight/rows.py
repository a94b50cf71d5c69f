"""The rows of a training as its trainer will see them: how long they are, and whether each ends where it should."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from tasks.schema import Frozen, Message
from tasks.training.encode import encode_completion, encode_prompt
from tasks.training.examples import PreferenceExample, PromptExample, SFTExample
from tasks.training.launch_command import Kind
from tasks.training.preflight.memory import AnyConfig, within
from tasks.training.rl_config import GroupConfig, PPOConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Example = SFTExample | PreferenceExample | PromptExample
LARGE_SHARE = 0.2
"""A larger share of rows left out is worth a warning."""


class RowFacts(Frozen):
    """How long rows are, in tokens; a comparison counts once, by its longer side."""

    num_rows: int
    num_too_long: int
    """Left out by the trainer."""
    limit: int
    """Longest that a row may be; of prompts to sample for, the longest prompt."""
    longest: int
    """Of those that fit."""
    longest_prompt: int
    """Of those that fit."""
    num_open_turns: int
    """Rows with an earlier assistant turn that no EOS ends."""

    def warnings(self) -> list[str]:
        """What is odd, but stops nothing."""
        found = []
        if self.num_too_long > LARGE_SHARE * self.num_rows:
            found.append(
                f"{self.num_too_long} of {self.num_rows} rows ({self.num_too_long / self.num_rows:.0%}) are longer "
                f"than {self.limit} tokens and are left out"
            )
        if self.num_open_turns:
            found.append(
                f"{self.num_open_turns} of {self.num_rows} prompts hold an assistant turn that does not end with EOS: "
                "the chat template closes the last turn otherwise than earlier ones"
            )
        return found


def measure_rows(
    kind: Kind,
    config: AnyConfig,
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerBase",
    context: int | None,
) -> RowFacts:
    """Encode every row as the trainer does and look at it.

    Raises: ValueError: there is no row, none fits, one cannot be rendered, or one does not end with EOS alone.
    """
    limit = row_limit(config, context)
    too_long = longest = longest_prompt = open_turns = 0
    for number, example in enumerate(examples, start=1):
        prompt = _rendered(kind, tokenizer, example.prompt, number)
        sides = [encode_completion(tokenizer, text) for text in completions(example)]
        for ids in sides:
            check_end(kind, ids, tokenizer.eos_token_id, number)
        length = len(prompt) + max(map(len, sides), default=0)
        open_turns += prompt.count(tokenizer.eos_token_id) < sum(m.role == "assistant" for m in example.prompt)
        if length > limit:
            too_long += 1
        else:
            longest, longest_prompt = max(longest, length), max(longest_prompt, len(prompt))
    if too_long == len(examples):
        raise ValueError(
            f"preflight: {kind}: none of {len(examples)} rows fits {limit} tokens; "
            f"raise {_limiting_setting(config)} (the model's context permitting) or give shorter ones"
        )
    return RowFacts(
        num_rows=len(examples),
        num_too_long=too_long,
        limit=limit,
        longest=longest,
        longest_prompt=longest_prompt,
        num_open_turns=open_turns,
    )


def completions(example: Example) -> list[str]:
    """What is learnt of a row: nothing of a prompt that is sampled for."""
    if isinstance(example, SFTExample):
        return [example.completion]
    return [example.chosen, example.rejected] if isinstance(example, PreferenceExample) else []


def row_limit(config: AnyConfig, context: int | None) -> int:
    """Longest row that the trainer takes; of prompts to sample for, what the completion leaves."""
    if isinstance(config, PPOConfig | GroupConfig):
        return within(config.max_prompt_tokens + config.max_tokens, context) - config.max_tokens
    return within(config.max_tokens, context)


def check_end(kind: Kind, ids: Sequence[int], eos: int, number: int) -> None:
    """Raises: ValueError: EOS is not the last token of a completion, or not the only one of its kind."""
    if not ids or ids[-1] != eos:
        raise ValueError(
            f"preflight: {kind}: row {number} does not end with EOS (token {eos}): the model would learn to go on for "
            "ever; set eos_token of the tokenizer to the chat template's end of turn"
        )
    if eos in ids[:-1]:
        raise ValueError(
            f"preflight: {kind}: row {number} has EOS (token {eos}) within its completion: what follows could never be "
            "sampled; take the token's name out of the text, or use a tokenizer that can split special tokens"
        )


def _rendered(kind: Kind, tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Message], number: int) -> list[int]:
    try:
        return encode_prompt(tokenizer, prompt)
    except TemplateError as error:
        roles = ", ".join(message.role for message in prompt)
        raise ValueError(
            f"preflight: {kind}: the chat template cannot render row {number} (turns: {roles}): {error}; "
            "leave out such rows, or use a model whose template knows these turns"
        ) from error


def _limiting_setting(config: AnyConfig) -> str:
    return "max_prompt_tokens" if isinstance(config, PPOConfig | GroupConfig) else "max_tokens"
