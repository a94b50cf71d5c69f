"""Models whose tokens do not mean the same are found before anything is loaded; weights are not even there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.training.preflight.identity import check_identity
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    (folder / "model.safetensors").unlink()
    return folder


def edited(tiny: Path, folder: Path, name: str, edit: Callable[[Any], Any]) -> Path:
    """The tiny model's files with one JSON file changed."""
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    value = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(edit(value)))
    return folder


def test_identity_same_files_pass(tiny: Path, tmp_path: Path) -> None:
    check_identity({"model": tiny, "reward": edited(tiny, tmp_path / "r", "config.json", lambda config: config)})


def test_identity_another_chat_template_is_named(tiny: Path, tmp_path: Path) -> None:
    other = edited(tiny, tmp_path / "r", "tokenizer_config.json", lambda config: config)
    template = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").write_text(template.replace("<|assistant|>", "<|user|>"))
    with pytest.raises(
        ValueError, match=r"reward \(r\) and model .* different tokenizers: chat template .*train it from"
    ):
        check_identity({"model": tiny, "reward": other})


def test_identity_another_vocabulary_is_named_with_a_token(tiny: Path, tmp_path: Path) -> None:
    def swap(tokenizer: Any) -> Any:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        return tokenizer

    other = edited(tiny, tmp_path / "r", "tokenizer.json", swap)
    with pytest.raises(
        ValueError, match=r"held_out_reward .*vocabulary \(\d+ against \d+ tokens, 2 differ, for one 'a'\)"
    ):
        check_identity({"model": tiny, "reward": tiny, "held_out_reward": other})


def test_identity_another_way_to_cut_text_is_named(tiny: Path, tmp_path: Path) -> None:
    def cut(tokenizer: Any) -> Any:
        return tokenizer | {"pre_tokenizer": tokenizer["pre_tokenizer"] | {"add_prefix_space": True}}

    with pytest.raises(ValueError, match=r"pre_tokenizer of tokenizer\.json"):
        check_identity({"model": tiny, "reward": edited(tiny, tmp_path / "r", "tokenizer.json", cut)})


def test_identity_another_special_token_is_named_with_both(tiny: Path, tmp_path: Path) -> None:
    other = edited(tiny, tmp_path / "r", "tokenizer_config.json", lambda c: c | {"pad_token": "<|system|>"})
    with pytest.raises(ValueError, match=r"pad_token \('<\|system\|>' 3 against '<\|pad\|>' 0\)"):
        check_identity({"model": tiny, "reward": other})


def test_identity_tokenizer_that_cannot_end_a_turn_is_refused(tiny: Path, tmp_path: Path) -> None:
    other = edited(tiny, tmp_path / "m", "tokenizer_config.json", lambda c: c | {"eos_token": "<|pad|>"})
    with pytest.raises(ValueError, match="set eos_token to the template's end of turn"):
        check_identity({"model": other})


def test_identity_tokenizer_with_more_tokens_than_the_embedding_is_refused(tiny: Path, tmp_path: Path) -> None:
    other = edited(tiny, tmp_path / "m", "config.json", lambda c: c | {"vocab_size": 100})
    with pytest.raises(ValueError, match="has 100 rows in its embedding"):
        check_identity({"model": other})
