"""The transformers engine: a row's text follows from its prompt and seed, whatever else is in the batch."""

import math

import pytest

from tasks.schema import Message
from tasks.serving import ChoiceRequest, GenerationRequest, Sampling, ServingConfig, ServingError
from tasks.serving.transformers_engine import TransformersGenerator
from tests.tiny_model import make_tiny_model

PROMPTS = ["Hi", "What is a boat?", "x" * 200, "How do I mend a fence?", "?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def generator(folder):
    return TransformersGenerator.load(folder, ServingConfig(max_concurrency=3))


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def requests(seed: int = 0) -> list[GenerationRequest]:
    return [GenerationRequest(user(text), seed + i) for i, text in enumerate(PROMPTS)]


def test_generate_greedy_equals_one_token_at_a_time_without_a_cache(generator, folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    for request, generation in zip(
        requests(), generator.generate(requests(), Sampling(temperature=0, max_tokens=12)), strict=True
    ):
        (rendered,) = generator._renderer.prompts([request], 12)
        ids = list(rendered.ids)
        for _ in range(generation.num_tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert generation.text == generator._renderer.completion(ids[len(rendered.ids) :])


def test_generate_same_seeds_give_same_texts_in_any_order_and_alone(generator):
    sampling = Sampling(max_tokens=20)
    together = generator.generate(requests(), sampling)
    assert generator.generate(requests()[::-1], sampling)[::-1] == together
    assert [generator.generate([request], sampling)[0] for request in requests()] == together


def test_generate_other_seeds_give_other_texts(generator):
    twice = [generator.generate(requests(seed), Sampling(max_tokens=20)) for seed in (0, 100)]
    assert all(a.text != b.text for a, b in zip(*twice, strict=True))


def test_generate_samples_follow_the_models_probabilities(generator):
    import torch

    same = [GenerationRequest(user("Hi"), seed) for seed in range(3000)]
    drawn = generator.generate(same, Sampling(max_tokens=1, temperature=0.05))
    prompt = generator._renderer.prompts(same[:1], 1)[0].ids
    probs = (generator.next_logprobs([prompt])[0].double() / 0.05).softmax(-1)
    top = int(probs.argmax())
    share = sum(g.text == generator._renderer.completion([top]) for g in drawn) / len(drawn)
    expected = float(probs[top])
    assert 0.05 < expected < 0.95
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / len(drawn))
    assert torch.isclose(probs.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_generate_small_top_p_takes_the_likeliest_token(generator):
    greedy = generator.generate(requests(), Sampling(temperature=0, max_tokens=8))
    assert generator.generate(requests(), Sampling(top_p=1e-6, max_tokens=8)) == greedy


def test_generate_ends_at_the_end_token_or_at_the_limit(generator, monkeypatch):
    limited = generator.generate(requests(), Sampling(temperature=0, max_tokens=6))
    assert {(g.finish_reason, g.num_tokens) for g in limited} == {("length", 6)}
    second = generator._renderer._tokenizer(limited[0].text)["input_ids"][1]
    monkeypatch.setattr(generator._renderer, "stop_ids", frozenset({second}))
    stopped = generator.generate(requests()[:1], Sampling(temperature=0, max_tokens=6))[0]
    assert (stopped.finish_reason, stopped.num_tokens) == ("stop", 2)
    assert limited[0].text.startswith(stopped.text)


def test_generate_row_that_does_not_fit_fails_alone(generator):
    long = GenerationRequest(user("x" * 600), 0)
    good, bad, also_good = generator.generate([requests()[0], long, requests()[1]], Sampling(max_tokens=4))
    assert bad.text is None and "603 tokens" in bad.error and "512" in bad.error
    assert good.error is None and also_good.error is None
    assert generator.choose([ChoiceRequest(user("x" * 600))], ("(A", "(B"))[0].logprobs is None


def test_generate_nothing_gives_nothing(generator):
    assert generator.generate([], Sampling()) == []
    assert generator.choose([], ("(A", "(B")) == []


def test_choose_equals_the_unpadded_models_log_probabilities(generator, folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    asked = [ChoiceRequest(user(text), prefix="It is") for text in PROMPTS]
    for request, choice in zip(asked, generator.choose(asked, ("(A", "(B")), strict=True):
        (rendered,) = generator._renderer.choices([request], ("(A", "(B"))
        logprobs = model(torch.tensor([rendered.ids])).logits[0, -1].detach().log_softmax(-1)
        assert choice.logprobs == pytest.approx([float(logprobs[i]) for i in rendered.answer_ids], abs=1e-5)
        assert choice.num_prompt_tokens == len(rendered.ids)


def test_choose_swapped_answers_swap_their_log_probabilities(generator):
    asked = [ChoiceRequest(user("Which?"))]
    forward, backward = (generator.choose(asked, answers)[0] for answers in [("(A", "(B"), ("(B", "(A")])
    assert forward.logprobs == backward.logprobs[::-1]


def test_load_folder_without_weights_is_a_clear_error(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ServingError, match="no model can be loaded"):
        TransformersGenerator.load(tmp_path, ServingConfig())
