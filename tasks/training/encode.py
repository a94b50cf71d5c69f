"""Conversations as token ids, the same for every trainer and for the server.

The prompt is rendered by the model's own chat template and tokenised as it is when it is served; a completion
is tokenised by itself and ends with the tokenizer's EOS. What is trained on is therefore exactly what
sampling produces, whatever a template does to an assistant turn that lies in the past.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.schema import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder, checked for what training needs of it.

    Raises: ValueError: no EOS token, no pad token, no chat template, or a template that ends an assistant
    turn otherwise than with EOS (rows would then teach the model never to stop where the server does).
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("eos_token", "pad_token", "chat_template"):
        if getattr(tokenizer, name) is None:
            raise ValueError(f"tokenizer of {folder}: {name} is not set; set it in its tokenizer_config.json")
    _check_turn_ends_with_eos(tokenizer, folder)
    return tokenizer


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Ids of the conversation and the opening of the assistant's turn."""
    chat = [message.model_dump() for message in messages]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_completion(tokenizer: "PreTrainedTokenizerBase", completion: str) -> list[int]:
    """Ids of an assistant's words, EOS last; the name of a special token among them is mere text."""
    return [
        *tokenizer(completion, add_special_tokens=False, split_special_tokens=True)["input_ids"],
        tokenizer.eos_token_id,
    ]


def encode_conversation(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Ids of a whole conversation that ends with an assistant turn, EOS last.

    Raises: ValueError: it ends with somebody else's turn.
    """
    if not messages or messages[-1].role != "assistant":
        last = messages[-1].role if messages else "nothing"
        raise ValueError(f"conversation ends with {last}, expected an assistant turn to score")
    prompt = encode_prompt(tokenizer, messages[:-1])
    return prompt + encode_completion(tokenizer, messages[-1].content)


def _check_turn_ends_with_eos(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    word = "Marathon"
    chat = [{"role": "user", "content": "Salamis"}, {"role": "assistant", "content": word}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    ending = text[text.rfind(word) + len(word) :]
    if tokenizer.eos_token not in ending:
        raise ValueError(
            f"tokenizer of {folder}: the chat template ends an assistant turn with {ending!r}, "
            f"expected eos_token {tokenizer.eos_token!r}; set eos_token to the template's end of turn"
        )
