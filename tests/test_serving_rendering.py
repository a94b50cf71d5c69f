"""Prompts: which tokens a model is asked with, and which rows cannot be asked."""

import json

import pytest

from tasks.schema import Message
from tasks.serving import ChoiceRequest, GenerationRequest, ServingConfig, ServingError
from tasks.serving.rendering import Renderer
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def renderer(folder):
    return Renderer.load(folder, ServingConfig())


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def decoded(renderer: Renderer, ids: list[int]) -> str:
    return renderer._tokenizer.decode(ids)


def test_prompt_holds_the_turns_then_the_opened_answer_with_its_prefix(renderer):
    messages = [*user("Hi"), Message(role="assistant", content="Yo"), *user("Ünïcode\n\nHuman: 你好")]
    (rendered,) = renderer.prompts([GenerationRequest(messages, 0, prefix="Well")], 8)
    expected = "<|user|>Hi<|end|><|assistant|>Yo<|end|><|user|>Ünïcode\n\nHuman: 你好<|end|><|assistant|>Well"
    assert decoded(renderer, rendered.ids) == expected
    assert rendered.error is None


def test_prompt_paper_format_is_human_and_assistant_turns(folder):
    renderer = Renderer.load(folder, ServingConfig(chat_template="human_assistant"))
    messages = [Message(role="system", content="Be kind."), *user("Hi"), Message(role="assistant", content="Yo")]
    plain, begun = renderer.prompts([GenerationRequest([*messages, *user("Go")], 0, prefix=p) for p in ("", "Well")], 8)
    text = "Be kind.\n\nHuman: Hi\n\nAssistant: Yo\n\nHuman: Go\n\nAssistant:"
    assert decoded(renderer, plain.ids) == text
    assert decoded(renderer, begun.ids) == text + " Well"


def test_completion_paper_format_ends_before_the_next_human_turn(folder):
    renderer = Renderer.load(folder, ServingConfig(chat_template="human_assistant"))
    ids = renderer._tokenizer(" Sure.\n\nHuman: more")["input_ids"]
    assert renderer.stopped(ids) and not renderer.stopped(ids[:8])
    assert renderer.completion(ids) == "Sure."


def test_completion_keeps_all_text_and_drops_the_end_token(renderer):
    ids = renderer._tokenizer("  two\n lines ")["input_ids"]
    assert renderer.completion([*ids, *renderer.stop_ids]) == "  two\n lines "
    assert renderer.stopped([*ids, *renderer.stop_ids]) and not renderer.stopped(ids)


def test_prompt_longer_than_the_context_is_an_error_that_names_both_numbers(renderer):
    fits, too_long, longer = renderer.prompts([GenerationRequest(user("x" * n), 0) for n in (501, 502, 2000)], 8)
    assert fits.error is None and len(fits.ids) == 504
    assert "505 tokens" in too_long.error and "max_tokens 8" in too_long.error and "512" in too_long.error
    assert "2003 tokens" in longer.error


def test_prompt_empty_conversation_is_that_rows_error(renderer):
    empty, good = renderer.prompts([GenerationRequest([], 0), GenerationRequest(user("Hi"), 0)], 8)
    assert "empty" in empty.error and good.error is None


def test_prompt_refused_by_the_template_is_that_rows_error(folder, tmp_path):
    renderer = Renderer.load(folder, ServingConfig())
    renderer._tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    (refused,) = renderer.prompts([GenerationRequest(user("Hi"), 0)], 8)
    assert "roles must alternate" in refused.error


def test_choice_prompt_goes_up_to_where_the_answers_part(renderer):
    (choice,) = renderer.choices([ChoiceRequest(user("Which?"))], ("(A", "(B"))
    assert decoded(renderer, choice.ids) == "<|user|>Which?<|end|><|assistant|>("
    assert [decoded(renderer, [i]) for i in choice.answer_ids] == ["A", "B"]


def test_choice_of_merged_answer_tokens_takes_the_whole_token(folder, tmp_path):
    renderer = Renderer.load(merge(folder, tmp_path, ["y", "A"], ["y", "B"]), ServingConfig())
    (choice,) = renderer.choices([ChoiceRequest(user("Which?"))], ("yA", "yB"))
    assert decoded(renderer, choice.ids) == "<|user|>Which?<|end|><|assistant|>"
    assert [decoded(renderer, [i]) for i in choice.answer_ids] == ["yA", "yB"]


def test_choice_that_merges_with_the_prefix_is_resolved_in_context(folder, tmp_path):
    renderer = Renderer.load(merge(folder, tmp_path, ["Ġ", "A"], ["Ġ", "B"]), ServingConfig())
    (choice,) = renderer.choices([ChoiceRequest(user("Which?"), prefix="It is")], (" A", " B"))
    assert decoded(renderer, choice.ids).endswith("It is")
    assert [decoded(renderer, [i]) for i in choice.answer_ids] == [" A", " B"]


@pytest.mark.parametrize("answers", [("yes", "no"), ("(A", "(AB"), ("(A", "(A"), ("(A",)])
def test_choice_answers_of_several_tokens_are_an_error_that_shows_them(renderer, answers):
    (choice,) = renderer.choices([ChoiceRequest(user("Which?"))], answers)
    assert "exactly one token" in choice.error and repr(answers[0]) in choice.error


def test_renderer_model_without_template_names_the_setting(folder, tmp_path):
    bare = copy(folder, tmp_path)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ServingError, match="chat_template: human_assistant"):
        Renderer.load(bare, ServingConfig())
    assert Renderer.load(bare, ServingConfig(chat_template="human_assistant")).context_tokens == 512


def test_renderer_every_end_of_text_of_the_model_stops(folder, tmp_path):
    several = copy(folder, tmp_path)
    path = several / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [4, 7]}))
    assert Renderer.load(several, ServingConfig()).stop_ids == {4, 7}


def test_renderer_context_is_what_is_asked_and_no_more_than_the_model_has(folder):
    assert Renderer.load(folder, ServingConfig(max_model_tokens=100)).context_tokens == 100
    with pytest.raises(ServingError, match=r"max_model_tokens: 513, but .* 512"):
        Renderer.load(folder, ServingConfig(max_model_tokens=513))


def test_renderer_folder_without_model_is_a_clear_error(tmp_path):
    with pytest.raises(ServingError, match="no tokenizer"):
        Renderer.load(tmp_path, ServingConfig())


def copy(folder, target):
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def merge(folder, target, *pairs):
    """The same model with a tokenizer that merges these pairs."""
    path = copy(folder, target) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for left, right in pairs:
        vocabulary[left + right] = len(vocabulary)
    tokenizer["model"]["merges"] = list(pairs)
    path.write_text(json.dumps(tokenizer))
    return target
