"""Rows are looked at as the trainers encode them: length, and EOS at the end and nowhere else."""

from typing import Any

import pytest

from tasks.schema import Message
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.encode import load_tokenizer
from tasks.training.examples import PreferenceExample, PromptExample, SFTExample
from tasks.training.preflight import rows
from tasks.training.preflight.rows import measure_rows
from tasks.training.rl_config import PPOConfig
from tests.tiny_model import make_tiny_model

# one token a byte: "hi" is <|user|> h i <|end|> <|assistant|>, 5 tokens; a completion has its bytes and EOS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(make_tiny_model(tmp_path_factory.mktemp("tiny")))


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def sft(length: int) -> SFTExample:
    return SFTExample(prompt=user("hi"), completion="a" * length)


def test_rows_lengths_by_hand_and_those_too_long(tokenizer: Any) -> None:
    facts = measure_rows("sft", SFTConfig(max_tokens=20), [sft(3), sft(14), sft(15)], tokenizer, context=512)
    assert (facts.num_rows, facts.num_too_long, facts.limit) == (3, 1, 20)
    assert (facts.longest, facts.longest_prompt) == (5 + 14 + 1, 5)
    assert "1 of 3 rows (33%) are longer than 20 tokens" in facts.warnings()[0]


def test_rows_a_fifth_too_long_is_no_warning(tokenizer: Any) -> None:
    facts = measure_rows("sft", SFTConfig(max_tokens=20), [sft(3)] * 4 + [sft(99)], tokenizer, context=512)
    assert (facts.num_too_long, facts.warnings()) == (1, [])


def test_rows_the_context_is_a_limit_too(tokenizer: Any) -> None:
    assert measure_rows("sft", SFTConfig(max_tokens=100), [sft(3)], tokenizer, context=16).limit == 16


def test_rows_a_comparison_counts_by_its_longer_side(tokenizer: Any) -> None:
    row = PreferenceExample(prompt=user("hi"), chosen="a", rejected="a" * 9, target_prob=0.5)
    short = row.model_copy(update={"rejected": "a" * 3})
    facts = measure_rows("reward", RewardConfig(max_tokens=14), [row, short], tokenizer, context=512)
    assert (facts.num_rows, facts.num_too_long, facts.longest) == (2, 1, 5 + 3 + 1)


def test_rows_prompts_leave_room_for_the_completion(tokenizer: Any) -> None:
    config = PPOConfig(max_prompt_tokens=100, max_tokens=10)
    facts = measure_rows("ppo", config, [PromptExample(prompt=user("hi"))] * 2, tokenizer, context=16)
    assert (facts.limit, facts.longest_prompt) == (6, 5)


def test_rows_none_that_fits_is_an_error_with_the_setting(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"sft: none of 2 rows fits 8 tokens; raise max_tokens"):
        measure_rows("sft", SFTConfig(max_tokens=8), [sft(9), sft(9)], tokenizer, context=512)


def test_rows_one_without_eos_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows.encode_completion
    monkeypatch.setattr(rows, "encode_completion", lambda t, text: whole(t, text)[: None if "b" in text else -1])
    examples = [SFTExample(prompt=user("hi"), completion=text) for text in ("b", "a")]
    with pytest.raises(ValueError, match=r"sft: row 2 does not end with EOS .* set eos_token"):
        measure_rows("sft", SFTConfig(), examples, tokenizer, context=512)


def test_rows_eos_within_a_completion_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # a tokenizer that takes a special token's name in a text for the token
    eos = tokenizer.eos_token_id
    monkeypatch.setattr(
        rows, "encode_completion", lambda t, text: [*t(text, add_special_tokens=False)["input_ids"], eos]
    )
    example = SFTExample(prompt=user("hi"), completion="one<|end|>two")
    with pytest.raises(ValueError, match=r"row 1 has EOS .* within its completion"):
        measure_rows("sft", SFTConfig(), [example], tokenizer, context=512)


def test_rows_the_name_of_a_special_token_is_mere_text(tokenizer: Any) -> None:
    example = SFTExample(prompt=user("hi"), completion="one<|end|>two")
    assert measure_rows("sft", SFTConfig(), [example], tokenizer, context=512).num_too_long == 0


def test_rows_template_that_refuses_a_turn_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}x"
    monkeypatch.setattr(tokenizer, "chat_template", refusing)
    prompt = [Message(role="system", content="s"), *user("hi")]
    examples = [PromptExample(prompt=user("hi")), PromptExample(prompt=prompt)]
    with pytest.raises(ValueError, match=r"cannot render row 2 \(turns: system, user\): no system turns"):
        measure_rows("ppo", PPOConfig(), examples, tokenizer, context=512)


def test_rows_earlier_turn_without_eos_is_a_warning(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = [*user("a"), Message(role="assistant", content="b"), *user("c")]
    example = [SFTExample(prompt=prompt, completion="d")]
    assert measure_rows("sft", SFTConfig(), example, tokenizer, context=512).num_open_turns == 0
    monkeypatch.setattr(tokenizer, "chat_template", "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    facts = measure_rows("sft", SFTConfig(), example, tokenizer, context=512)
    assert facts.num_open_turns == 1 and "does not end with EOS" in facts.warnings()[0]
