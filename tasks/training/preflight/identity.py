"""Whether models that work on each other's tokens mean the same by them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.schema import Frozen
from tasks.training.encode import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ("eos_token", "pad_token", "bos_token")
RULES = ("normalizer", "pre_tokenizer", "model")
"""Sections of tokenizer.json that say how a text is cut; the others say what is put around it."""


class TokenizerFacts(Frozen):
    """What two tokenizers must have in common."""

    vocabulary: dict[str, int]
    special: dict[str, str]
    """Text and id of each special token."""
    rules: dict[str, str]
    """Hash of each section that says how a text is cut."""
    chat_template: str
    """Its hash."""


def check_identity(models: Mapping[str, Path]) -> None:
    """Make sure that every model has the first one's tokenizer, and rows in its embedding for every token.

    Raises: ValueError: names what differs and between what, or what a tokenizer lacks.
    """
    first, *others = models
    tokenizers = {role: load_tokenizer(folder) for role, folder in models.items()}
    for role, folder in models.items():
        _check_embedding(role, folder, tokenizers[role])
    facts = {role: tokenizer_facts(tokenizer) for role, tokenizer in tokenizers.items()}
    for role in others:
        if found := differences(facts[first], facts[role]):
            raise ValueError(
                f"preflight: {role} ({models[role].name}) and {first} ({models[first].name}) have different "
                f"tokenizers: {'; '.join(found)}. The {role} would read other words than the {first} "
                "writes: train it from this model, or give the one that belongs to it"
            )


def tokenizer_facts(tokenizer: "PreTrainedTokenizerBase") -> TokenizerFacts:
    """What another tokenizer has to agree with."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # a tokenizer in plain Python has no rules to compare
    sections = json.loads(backend.to_str()) if backend else {}
    return TokenizerFacts(
        vocabulary=tokenizer.get_vocab(),
        special={
            name: f"{token!r} {tokenizer.convert_tokens_to_ids(token)}" if token else "none"
            for name, token in ((name, getattr(tokenizer, name)) for name in SPECIAL)
        },
        rules={name: _hash(json.dumps(sections.get(name), sort_keys=True)) for name in RULES},
        chat_template=_hash(json.dumps(tokenizer.chat_template, sort_keys=True)),
    )


def differences(first: TokenizerFacts, other: TokenizerFacts) -> list[str]:
    """What `other` has otherwise than `first`, in words; the vocabulary covers the rules that hold it."""
    found = []
    if first.vocabulary != other.vocabulary:
        odd = sorted(dict(set(first.vocabulary.items()) ^ set(other.vocabulary.items())))
        sizes = f"{len(other.vocabulary)} against {len(first.vocabulary)} tokens"
        found.append(f"vocabulary ({sizes}, {len(odd)} differ, for one {odd[0]!r})")
    else:
        found += [f"{name} of tokenizer.json" for name in RULES if first.rules[name] != other.rules[name]]
    found += [
        f"{name} ({other.special[name]} against {first.special[name]})"
        for name in SPECIAL
        if first.special[name] != other.special[name]
    ]
    if first.chat_template != other.chat_template:
        found.append(f"chat template (hash {other.chat_template[:8]} against {first.chat_template[:8]})")
    return found


def _check_embedding(role: str, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    from tasks.training.preflight.shape import read_config

    rows, highest = read_config(folder).get_text_config().vocab_size, max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ValueError(
            f"preflight: {role} ({folder.name}) has {rows} rows in its embedding, but its tokenizer has a token "
            f"{highest}; the tokenizer is another model's: give the one that belongs to it"
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
