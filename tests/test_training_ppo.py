"""PPO on a tiny model: it learns, samples honestly, resumes exactly."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from tasks.schema import Message
from tasks.training.encode import encode_prompt, load_tokenizer
from tasks.training.folders import load_policy, load_scalar_model
from tasks.training.ppo.cache import roomy_cache
from tasks.training.ppo.episodes import collect_episodes, load_models, padded_batch
from tasks.training.ppo.loop import draw_prompts
from tasks.training.ppo.model import (
    PolicyAndValue,
    check_plain_head,
    response_logits,
    response_values,
    token_logprobs,
    token_logprobs_and_entropies,
)
from tasks.training.ppo.rollout import sample_completions
from tasks.training.ppo.trainer import train_ppo
from tasks.training.ppo.update import make_optimizer, optimise
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import UNWATCHED, Supervision
from tests.ppo_world import PROMPTS, digest, likes_a, make_policy, make_reward

CONFIG = PPOConfig(
    num_updates=6,
    batch_size=32,
    mini_batch_size=16,
    micro_batch_size=8,
    num_epochs=2,
    learning_rate=2e-3,
    value_learning_rate=5e-3,
    kl_coef=0.02,
    target_kl=3.0,
    kl_horizon=500,
    max_tokens=6,
    checkpoint_every=2,
    rollouts_kept=2,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """A policy that says random words over a and b, and a reward model that likes a."""
    root = tmp_path_factory.mktemp("models")
    policy = make_policy(root)
    return policy, make_reward(root / "reward", policy, likes_a)


@pytest.fixture(scope="module")
def uninterrupted(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("ppo")
    result = train_ppo(CONFIG, PROMPTS, *models, root / "model", 0, UNWATCHED, rollouts=root / "rollouts.jsonl")
    return root, result


def test_ppo_raises_the_reward_and_pays_in_kl(models, tmp_path):
    config = CONFIG.model_copy(update={"num_updates": 15, "target_kl": None})
    lines: list[dict] = []
    train_ppo(config, PROMPTS, *models, tmp_path, 0, Supervision(log=lines.append))
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["score"] > lines[0]["score"] + 0.8
    assert 0.2 < lines[-1]["kl"] < 10
    assert [line["step"] for line in lines] == list(range(1, 16))
    said = sample_completions(
        load_policy(tmp_path),
        [encode_prompt(load_tokenizer(tmp_path), prompt) for prompt in PROMPTS] * 5,
        torch.rand((50, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        1.0,
        load_tokenizer(tmp_path).eos_token_id,
    )
    text = load_tokenizer(tmp_path).decode([token for completion in said.completions for token in completion])
    assert text.count("a") > 2 * text.count("b")


def test_value_model_learns_what_a_fixed_policy_earns(models, tmp_path):
    # of 32 episodes, an update's explained variance was a matter of luck
    changes = {"num_updates": 10, "learning_rate": 1e-12, "batch_size": 128, "mini_batch_size": 32}
    config = CONFIG.model_copy(update=changes)
    lines: list[dict] = []
    train_ppo(config, PROMPTS, *models, tmp_path, 0, Supervision(log=lines.append))
    assert lines[-1]["explained_variance"] > 0.3 > lines[0]["explained_variance"]
    assert lines[-1]["value_loss"] < 0.7 * lines[0]["value_loss"]
    assert abs(lines[-1]["kl"]) < 1e-4


def test_resume_after_a_kill_equals_uninterrupted(models, uninterrupted, tmp_path):
    class Killed(Exception):
        pass

    def kill_in_update_5(line: dict) -> None:
        if line["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        train_ppo(CONFIG, PROMPTS, *models, tmp_path / "model", 0, Supervision(kill_in_update_5, tmp_path / "points"))
    assert not (tmp_path / "model").exists()
    steps: list[int] = []
    result = train_ppo(
        CONFIG,
        PROMPTS,
        *models,
        tmp_path / "model",
        0,
        Supervision(lambda line: steps.append(line["step"]), tmp_path / "points"),
        rollouts=tmp_path / "rollouts.jsonl",
    )
    root, expected = uninterrupted
    assert steps == [5, 6]
    assert result == expected
    assert digest(tmp_path / "model") == digest(root / "model")
    assert (tmp_path / "rollouts.jsonl").read_bytes() == (root / "rollouts.jsonl").read_bytes()


def test_resume_ignores_a_half_written_checkpoint(models, uninterrupted, tmp_path):
    points = tmp_path / "points"
    train_ppo(CONFIG, PROMPTS, *models, tmp_path / "first", 0, Supervision(checkpoints=points))
    shutil.move(points / "step-00000006", points / ".partial-step-00000006")
    (points / ".partial-step-00000006" / "progress.json").unlink()
    steps: list[int] = []
    train_ppo(
        CONFIG, PROMPTS, *models, tmp_path / "model", 0, Supervision(lambda line: steps.append(line["step"]), points)
    )
    assert steps == [5, 6]
    assert digest(tmp_path / "model") == digest(uninterrupted[0] / "model")


def test_resume_of_another_config_is_refused(models, tmp_path):
    config = CONFIG.model_copy(update={"num_updates": 2})
    train_ppo(config, PROMPTS, *models, tmp_path / "model", 0, Supervision(checkpoints=tmp_path / "points"))
    other = config.model_copy(update={"kl_coef": 0.5})
    with pytest.raises(ValueError, match="another config, seed, model or set of examples"):
        train_ppo(other, PROMPTS, *models, tmp_path / "model", 0, Supervision(checkpoints=tmp_path / "points"))


def test_checkpoint_holds_safetensors_and_json_alone(models, tmp_path):
    config = CONFIG.model_copy(update={"num_updates": 6})
    train_ppo(config, PROMPTS, *models, tmp_path / "model", 0, Supervision(checkpoints=tmp_path / "points"))
    assert sorted(path.name for path in (tmp_path / "points").iterdir()) == ["step-00000004", "step-00000006"]
    files = {path.suffix for path in (tmp_path / "points").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}


def test_same_inputs_give_the_same_bytes_in_another_folder(models, uninterrupted, tmp_path):
    policy, reward = (Path(shutil.copytree(model, tmp_path / model.name)) for model in models)
    result = train_ppo(CONFIG, PROMPTS, policy, reward, tmp_path / "out", 0, UNWATCHED)
    assert digest(tmp_path / "out") == digest(uninterrupted[0] / "model")
    assert result == uninterrupted[1]


def test_gradient_checkpointing_saves_memory_not_accuracy(models, uninterrupted, tmp_path):
    config = CONFIG.model_copy(update={"gradient_checkpointing": True, "num_updates": 2})
    result = train_ppo(config, PROMPTS, *models, tmp_path, 0, UNWATCHED)
    assert result["history"] == uninterrupted[1]["history"][:2]
    assert (tmp_path / "config.json").read_bytes() == (uninterrupted[0] / "model/config.json").read_bytes()


def test_bfloat16_computes_nearly_the_same_and_saves_half_the_bytes(models, uninterrupted, tmp_path):
    config = CONFIG.model_copy(update={"precision": "bfloat16", "num_updates": 1})
    first = train_ppo(config, PROMPTS, *models, tmp_path, 0, UNWATCHED)["history"][0]
    expected = uninterrupted[1]["history"][0]
    for name in ("score", "entropy", "num_tokens", "value_loss"):
        assert first[name] == pytest.approx(expected[name], rel=0.1, abs=0.1), name
    full = (uninterrupted[0] / "model" / "model.safetensors").stat().st_size
    assert (tmp_path / "model.safetensors").stat().st_size < 0.6 * full


def test_rollouts_tell_prompt_update_and_text(uninterrupted):
    rows = [json.loads(line) for line in (uninterrupted[0] / "rollouts.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert set(rows[0]) == {"prompt", "update", "completion", "score", "kl", "num_tokens"}
    first = draw_prompts(len(PROMPTS), CONFIG.batch_size, seed=0, update=0)
    assert [rows[0]["prompt"], rows[1]["prompt"]] == first[:2]
    assert all("<|end|>" not in row["completion"] and 1 <= row["num_tokens"] <= 6 for row in rows)


def test_adaptive_kl_coefficient_falls_while_kl_is_under_its_target(uninterrupted):
    history = uninterrupted[1]["history"]
    assert history[0]["kl_coef"] == 0.02
    assert history[1]["kl_coef"] == pytest.approx(0.02 * (1 - 0.2 * 32 / 500))


def test_too_long_prompts_are_left_out_and_counted(models, tmp_path):
    prompts = [*PROMPTS, [Message(role="user", content="x" * 50)]]
    config = CONFIG.model_copy(update={"num_updates": 1, "max_prompt_tokens": 20})
    result = train_ppo(config, prompts, *models, tmp_path, 0, UNWATCHED)
    assert (result["num_prompts"], result["num_too_long"]) == (10, 1)
    with pytest.raises(ValueError, match="none of 1 prompts fits 20 tokens"):
        train_ppo(config, prompts[-1:], *models, tmp_path, 0, UNWATCHED)


def test_reward_model_with_another_vocabulary_is_refused(models, tmp_path):
    other = Path(shutil.copytree(models[1], tmp_path / "reward"))
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"<|user|>"', '"<|human|>"'))
    (other / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    with pytest.raises(ValueError, match="different vocabularies"):
        load_models(models[0], other, CONFIG)


def test_diverged_training_is_stopped(models, tmp_path):
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(FloatingPointError, match="lower the learning rates"):
        train_ppo(config, PROMPTS, *models, tmp_path, 0, UNWATCHED)


def test_each_pass_over_the_prompts_visits_every_one():
    drawn = [i for update in range(5) for i in draw_prompts(10, 8, seed=1, update=update)]
    passes = [drawn[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert passes[0] != passes[1]


def sampling_setup(models):
    policy = load_policy(models[0])
    prompts = [encode_prompt(load_tokenizer(models[0]), prompt) for prompt in PROMPTS * 4]
    uniforms = torch.rand((40, 12), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return policy, prompts, uniforms, load_tokenizer(models[0]).eos_token_id


def test_sample_with_cache_equals_sample_without(models):
    """Each token is the one that its random number picks from the full forward pass's distribution."""
    policy, prompts, uniforms, eos = sampling_setup(models)
    completions = sample_completions(policy, prompts, uniforms, 1.7, eos).completions
    for prompt, completion, row in zip(prompts, completions, uniforms, strict=True):
        ids, response = padded_batch([prompt], [completion], pad=0)
        cumulative = (response_logits(policy, ids, response, 1.7).double().softmax(-1)).cumsum(-1)
        expected = [int((cumulative[t] <= row[t]).sum()) for t in range(len(completion))]
        assert completion == expected
        assert eos not in completion[:-1] and (completion[-1] == eos or len(completion) == 12)


def test_sample_tells_what_a_whole_pass_says_of_its_tokens(models):
    policy, prompts, uniforms, eos = sampling_setup(models)
    completions, figures = sample_completions(policy, prompts, uniforms, 1.7, eos)
    assert figures.shape == (40, 2, 12)
    for prompt, completion, (logprobs, entropies) in zip(prompts, completions, figures, strict=True):
        ids, response = padded_batch([prompt], [completion], pad=0)
        expected = token_logprobs_and_entropies(response_logits(policy, ids, response, 1.7), ids[response])
        assert torch.allclose(logprobs[: len(completion)], expected[0], atol=1e-5)
        assert torch.allclose(entropies[: len(completion)], expected[1], atol=1e-5)


def test_cache_with_room_holds_what_transformers_own_does():
    """Also when its room is used up, and when rows are dropped."""
    config = LlamaConfig(num_hidden_layers=1)
    ours, theirs = roomy_cache(config, 3), DynamicCache(config=config)
    drawn = torch.Generator().manual_seed(0)
    for tokens, rows in ((4, 5), (1, 5), (1, 3), (1, 3), (1, 3), (1, 2), (2, 2)):
        for each in (ours, theirs):
            if len(each) and each.get_seq_length():
                each.batch_select_indices(torch.arange(rows).flip(0))
        new = torch.randn((2, rows, 2, tokens, 8), generator=drawn)
        given = [each.update(new[0], new[1], 0) for each in (ours, theirs)]
        assert all(torch.equal(a, b) for a, b in zip(*given, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_sample_of_a_prompt_does_not_depend_on_its_company(models):
    policy, prompts, uniforms, eos = sampling_setup(models)
    together = sample_completions(policy, prompts, uniforms, 1.7, eos).completions  # so hot that lengths differ
    assert len({len(completion) for completion in together}) >= 3
    alone = [
        sample_completions(policy, [p], uniforms[i : i + 1], 1.7, eos).completions[0] for i, p in enumerate(prompts)
    ]
    assert together == alone


def test_sample_frequencies_follow_the_policy(models):
    policy, prompts, _, eos = sampling_setup(models)
    uniforms = torch.rand((4000, 1), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = sample_completions(policy, prompts[:1] * 4000, uniforms, 1.0, eos).completions
    counts = torch.bincount(torch.tensor([completion[0] for completion in drawn]), minlength=320)
    with torch.no_grad():
        expected = policy(torch.tensor([prompts[0]])).logits[0, -1].softmax(-1)
    assert (counts / 4000 - expected).abs().max() < 0.03


def test_packed_logprobs_and_values_equal_those_of_single_rows(models):
    policy, value = load_policy(models[0]), load_scalar_model(models[1])
    prompts, completions = [[5, 6], [7, 8, 9, 10]], [[11, 12, 4], [13]]
    ids, response = padded_batch(prompts, completions, pad=0)
    logits, values = PolicyAndValue(policy, value)(ids, response, 0.7)
    row, at = 0, 0
    for row in range(2):
        one = torch.tensor([prompts[row] + completions[row]])
        full = policy(one).logits[0] / 0.7
        hidden = value.model(one).last_hidden_state
        for step, token in enumerate(completions[row]):
            position = len(prompts[row]) + step - 1
            expected = full[position].log_softmax(-1)[token]
            assert token_logprobs(logits, ids[response])[at].item() == pytest.approx(expected.item(), abs=1e-4)
            assert values[at].item() == pytest.approx(value.score(hidden)[0, position].item(), abs=1e-4)
            at += 1
    assert at == len(values) == 4
    assert torch.equal(response_values(value, ids, response), values)


def test_first_step_has_ratio_one_and_micro_batches_do_not_change_it(models):
    """The gradient of one step over all episodes is the same however it is cut into passes."""
    gradients = []
    for micro in (32, 5):
        loaded = load_models(*models, CONFIG)
        config = CONFIG.model_copy(
            update={"num_epochs": 1, "mini_batch_size": 32, "micro_batch_size": micro, "max_grad_norm": 1e9}
        )
        prompts = [encode_prompt(loaded.tokenizer, prompt) for prompt in PROMPTS * 3]
        uniforms = torch.rand((30, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        episodes = collect_episodes(loaded, config, prompts, uniforms, 0.1)
        optimizer = make_optimizer(loaded.learner, config)
        before = [p.detach().clone() for p in loaded.learner.parameters()]
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.0
        metrics = optimise(loaded, optimizer, episodes, config, torch.Generator().manual_seed(0))
        assert metrics["clip_fraction"] == 0
        assert all(torch.equal(a, b) for a, b in zip(before, loaded.learner.parameters(), strict=True))
        gradients.append((metrics["grad_norm_policy"], metrics["grad_norm_value"], metrics["policy_loss"]))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4, abs=1e-6)
    assert gradients[0][0] > 0


def test_architecture_that_caps_its_logits_is_refused():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,
        final_logit_softcapping=0.01,
    )
    with pytest.raises(ValueError, match="gemma2 changes its logits"):
        check_plain_head(Gemma2ForCausalLM(config).eval())
