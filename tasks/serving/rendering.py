"""Conversations become token ids here, for both engines, so that both see the same and no server guesses.

A prompt is never truncated, and `max_tokens` is never lowered: a row whose prompt and `max_tokens` together
exceed the context is that row's error. So every completion was drawn under the limit that the config names.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tasks.schema import Message
from tasks.serving.interface import ChoiceRequest, GenerationRequest, ServingConfig, ServingError

HUMAN_ASSISTANT = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": ""}
"""The paper's format of a conversation (Bai et al. 2022), for a model without a chat template."""


@dataclass(frozen=True)
class Rendered:
    """A prompt as token ids, with the token of each answer where answers were asked for; or its error."""

    ids: list[int]
    answer_ids: tuple[int, ...] = ()
    error: str | None = None


class Renderer:
    """Renders for one model. `stop_ids` end a completion, as do the strings in `stop`."""

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int], context_tokens: int, chat_template: str) -> None:
        self._tokenizer = tokenizer
        self._paper_format = chat_template == "human_assistant"
        self.context_tokens = context_tokens
        self.stop_ids = frozenset(stop_ids)
        self.stop = ("\n\nHuman:",) if self._paper_format else ()

    @classmethod
    def load(cls, folder: Path, config: ServingConfig) -> "Renderer":
        """The renderer of the model in `folder`.

        Raises: ServingError: no tokenizer, no chat template, or more context asked than the model has.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ServingError(f"no tokenizer can be loaded from {folder}: {error}") from error
        if config.chat_template == "model" and not tokenizer.chat_template:
            raise ServingError(
                f"the model in {folder} has no chat template; "
                "set `chat_template: human_assistant` for the paper's format"
            )
        stop_ids = _stop_ids(folder) | ({tokenizer.eos_token_id} - {None})
        return cls(tokenizer, stop_ids, _context_tokens(folder, config), config.chat_template)

    def prompts(self, requests: Sequence[GenerationRequest], max_tokens: int) -> list[Rendered]:
        """One prompt a request, with room for `max_tokens` behind it."""
        return [self._checked(partial(self._prompt, r), max_tokens) for r in requests]

    def choices(self, requests: Sequence[ChoiceRequest], answers: tuple[str, ...]) -> list[Rendered]:
        """One prompt a request, up to where the answers part, and the one token of each answer there."""
        return [self._checked(partial(self._choice, r, answers), 1) for r in requests]

    def completion(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without what ended it."""
        kept = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        text = str(self._tokenizer.decode(kept, skip_special_tokens=True))
        for stop in self.stop:
            text = text.split(stop, 1)[0]
        return text.strip() if self._paper_format else text

    def stopped(self, ids: Sequence[int]) -> bool:
        """Whether these generated tokens end the completion."""
        if not ids or ids[-1] in self.stop_ids:
            return bool(ids)
        tail = self._tokenizer.decode(ids[-32:]) if self.stop else ""
        return any(stop in tail for stop in self.stop)

    def _checked(self, render: Callable[[], Rendered], max_tokens: int) -> Rendered:
        try:
            rendered = render()
        except _CannotRender as error:
            return Rendered([], error=str(error))
        if len(rendered.ids) + max_tokens <= self.context_tokens:
            return rendered
        return Rendered(
            rendered.ids,
            error=f"prompt has {len(rendered.ids)} tokens, with max_tokens {max_tokens} that is more than "
            f"the context holds: {self.context_tokens}",
        )

    def _prompt(self, request: GenerationRequest) -> Rendered:
        return Rendered(self._encode(self._text(request.messages, request.prefix)))

    def _choice(self, request: ChoiceRequest, answers: tuple[str, ...]) -> Rendered:
        text = self._text(request.messages, request.prefix)
        encoded = [self._encode(text + answer) for answer in answers]
        num_common = next((i for i, column in enumerate(zip(*encoded, strict=False)) if len(set(column)) > 1), 0)
        rests = [ids[num_common:] for ids in encoded]
        if any(len(rest) != 1 for rest in rests) or len({rest[0] for rest in rests}) < len(answers):
            shown = {a: self._tokenizer.convert_ids_to_tokens(r) for a, r in zip(answers, rests, strict=True)}
            raise _CannotRender(f"answers must differ in exactly one token, this tokenizer has {shown}")
        return Rendered(encoded[0][:num_common], tuple(rest[0] for rest in rests))

    def _text(self, messages: Sequence[Message], prefix: str) -> str:
        if not messages:
            raise _CannotRender("the conversation is empty")
        if self._paper_format:
            turns = "".join(HUMAN_ASSISTANT[m.role] + m.content for m in messages)
            return turns + "\n\nAssistant:" + (f" {prefix}" if prefix else "")
        return self._apply_template(messages) + prefix

    def _apply_template(self, messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except TemplateError as error:  # templates refuse what their model was not trained on
            raise _CannotRender(f"the model's chat template refuses the conversation: {error}") from error

    def _encode(self, text: str) -> list[int]:
        """A chat template writes its own special tokens; the paper's format takes the tokenizer's."""
        ids = self._tokenizer(text, add_special_tokens=self._paper_format, verbose=False)["input_ids"]
        return list(ids[:-1] if ids and ids[-1] in self.stop_ids and self._paper_format else ids)


class _CannotRender(ValueError):
    """This row has no prompt; the message becomes its error."""


def _model_config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()


def _stop_ids(folder: Path) -> set[int]:
    """The model's own ends of text: one or several ids, in either of two files."""
    from transformers import GenerationConfig

    ends = [_model_config(folder).eos_token_id]
    if (folder / "generation_config.json").exists():
        ends.append(GenerationConfig.from_pretrained(folder).eos_token_id)
    lists = [end if isinstance(end, list) else [end] for end in ends if end is not None]
    return {end for each in lists for end in each}


def _context_tokens(folder: Path, config: ServingConfig) -> int:
    """As many as the config asks for, at most as many as the model has positions."""
    positions = getattr(_model_config(folder), "max_position_embeddings", None)
    asked = config.max_model_tokens or positions
    if asked is None:
        raise ServingError(f"the model in {folder} does not say how many positions it has; set max_model_tokens")
    if positions is not None and asked > positions:
        raise ServingError(f"max_model_tokens: {asked}, but the model in {folder} has {positions} positions")
    return int(asked)
