"""RLOO and GRPO: our tokens and reward reach TRL as they should, they learn, and go on where they were."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from tasks.schema import Message
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.encode import encode_prompt, load_tokenizer
from tasks.training.examples import PreferenceExample, SFTExample
from tasks.training.rl_config import GroupConfig
from tasks.training.scoring import score
from tasks.training.supervision import UNWATCHED, Supervision
from tests.tiny_model import make_tiny_model

CONFIG = GroupConfig(
    num_steps=4,
    batch_size=16,
    group_size=4,
    micro_batch_size=8,
    learning_rate=2e-3,
    kl_coef=0.02,
    max_tokens=6,
    checkpoint_every=2,
)
PROMPTS = [[Message(role="user", content="go" * (1 + i % 3))] for i in range(6)]
ALGORITHMS = ("rloo", "grpo")


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def without_seconds(result: dict) -> dict:
    history = [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in result["history"]]
    return {**result, "history": history}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """A policy that says random words over a and b, and a reward model that likes a."""
    from tasks.training.reward import train_reward
    from tasks.training.sft import train_sft

    root = tmp_path_factory.mktemp("models")
    policy = root / "policy"
    words = ["".join("ab"[(i >> k) & 1] for k in range(3)) for i in range(8)]
    examples = [SFTExample(prompt=PROMPTS[i % 6], completion=words[i % 8]) for i in range(160)]
    sft = SFTConfig(epochs=3, learning_rate=1e-2, batch_size=16, micro_batch_size=16)
    train_sft(sft, examples, make_tiny_model(root / "base"), policy, 0, UNWATCHED)
    preferences = [
        PreferenceExample(
            prompt=PROMPTS[i % 6],
            chosen=words[i % 8],
            rejected=words[i // 8 % 8],
            target_prob=0.5 + (words[i % 8].count("a") - words[i // 8 % 8].count("a")) / 7,
        )
        for i in range(128)
    ]
    config = RewardConfig(epochs=2, learning_rate=3e-3, batch_size=16, micro_batch_size=16, held_out_fraction=0)
    train_reward(config, preferences, policy, root / "reward", 0, UNWATCHED)
    return policy, root / "reward"


@pytest.fixture(scope="module", params=ALGORITHMS)
def uninterrupted(request, models, tmp_path_factory):
    from tasks.training.group import train_group

    root = tmp_path_factory.mktemp(request.param)
    lines: list[dict] = []
    watched = Supervision(lines.append, root / "points")
    result = train_group(request.param, CONFIG, PROMPTS, *models, root / "model", 0, watched)
    return request.param, root, result, lines


def trainer_of(algorithm: str, config: GroupConfig, models, tmp_path):
    from tasks.training.group import make_trainer

    tokenizer = load_tokenizer(models[0])
    encoded = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]
    return make_trainer(algorithm, config, encoded, tokenizer, *models, str(tmp_path), 0), encoded


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_group_batch_holds_our_prompt_tokens_in_groups_and_each_prompt_once_a_pass(algorithm, models, tmp_path):
    trainer, encoded = trainer_of(algorithm, CONFIG, models, tmp_path)
    drawn = [tuple(row["prompt"]) for batch in trainer.get_train_dataloader() for row in batch]
    steps = [drawn[start : start + 16] for start in range(0, len(drawn), 2 * 16)]  # TRL shows a batch to both halves
    assert len(steps) == 4
    assert all(step[i : i + 4] == [step[i]] * 4 for step in steps for i in range(0, 16, 4))
    prompts = [prompt for step in steps for prompt in step[::4]]
    assert sorted(prompts[:6]) == sorted(prompts[6:12]) == sorted(map(tuple, encoded))
    batch = trainer._generate_and_score_completions([{"prompt": list(prompt)} for prompt in drawn[:16]])
    ids, mask = batch["prompt_ids"], batch["prompt_mask"].bool()
    assert [tuple(row[kept].tolist()) for row, kept in zip(ids, mask, strict=True)] == drawn[:16]


def test_reward_function_is_the_standardised_score_less_the_penalty_for_a_missing_eos(models):
    from tasks.training.group_trainers import reward_function

    tokenizer = load_tokenizer(models[0])
    eos = tokenizer.eos_token_id
    config = CONFIG.model_copy(update={"missing_eos_penalty": 0.25})
    noted: dict[str, float] = {}
    reward = reward_function(models[1], eos, config, torch.device("cpu"))
    prompts = [encode_prompt(tokenizer, PROMPTS[i]) for i in (0, 1, 1)]
    completions = [[*tokenizer(text)["input_ids"], eos] for text in ("aaa", "bbb", "aba")]
    ended = score(
        models[1],
        [[*PROMPTS[i], Message(role="assistant", content=text)] for i, text in ((0, "aaa"), (1, "bbb"), (1, "aba"))],
    )
    given = reward(prompts=prompts, completion_ids=completions, completions=None, log_metric=noted.__setitem__)
    assert given == pytest.approx(ended, abs=1e-4)
    assert noted["score"] == pytest.approx(sum(ended) / 3, abs=1e-4)
    open_end = [completions[0][:-1]]
    penalised = reward(prompts=prompts[:1], completion_ids=open_end, log_metric=noted.__setitem__)
    assert penalised[0] == pytest.approx(noted["score"] - 0.25, abs=1e-6)


def test_reward_function_stops_on_a_score_that_is_not_finite(models, tmp_path):
    import shutil

    from tasks.training.group_trainers import reward_function

    broken = shutil.copytree(models[1], tmp_path / "reward")
    (broken / "reward_scale.json").write_text('{"mean": 0.0, "std": NaN}')
    reward = reward_function(broken, 0, CONFIG, torch.device("cpu"))
    with pytest.raises(FloatingPointError, match=r"1 of 1 scores are not finite; train it anew"):
        reward(prompts=[[5]], completion_ids=[[6]], log_metric=lambda name, value: None)


def test_rloo_advantage_is_the_reward_less_kl_and_the_others_mean(models, tmp_path):
    trainer, encoded = trainer_of("rloo", CONFIG.model_copy(update={"kl_coef": 0.5}), models, tmp_path)
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight.mul_(1.2)  # so that there is a KL to pay
    batch = trainer._generate_and_score_completions([{"prompt": encoded[0]}] * 4)
    rewards = rewards_of(trainer, [encoded[0]] * 4, batch)
    with torch.no_grad():
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        start = batch["prompt_ids"].shape[1]
        sums = []
        for model in (trainer.model, trainer.ref_model):
            logprobs = model(input_ids=ids).logits.log_softmax(-1)[:, start - 1 : -1]
            tokens = logprobs.gather(2, batch["completion_ids"][:, :, None]).squeeze(2)
            sums.append((tokens * batch["completion_mask"]).sum(1))
    net = rewards - 0.5 * (sums[0] - sums[1])
    expected = net - (net.sum() - net) / 3
    assert torch.allclose(batch["advantages"], expected, atol=1e-4)
    assert expected.abs().max() > 0.01


def rewards_of(trainer, prompts: list[list[int]], batch: dict) -> torch.Tensor:
    """What our reward function says of a batch that TRL sampled."""
    kept = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    completions = [row[mask].tolist() for row, mask in kept]
    return torch.tensor(
        trainer.reward_funcs[0](prompts=prompts, completion_ids=completions, log_metric=lambda name, value: None)
    )


def test_our_figures_are_in_nats_and_tokens_a_completion():
    from tasks.training.group_trainers import our_figures

    noted = {
        "kl": [0.1, 0.3],
        "completions/mean_length": [5.0],
        "completions/clipped_ratio": [0.25],
        "score": [0.5],
        "entropy": [1.0, 2.0],
        "num_tokens": [12345.0],
    }
    assert our_figures(noted) == {
        "kl": [pytest.approx(1.0)], "num_tokens": [5.0], "eos_share": [0.75], "score": [0.5], "entropy": [1.5]
    }  # fmt: skip
    assert our_figures({}) == {}


def test_group_tells_of_every_step_under_our_names(uninterrupted):
    algorithm, _, result, lines = uninterrupted
    assert result["algorithm"] == algorithm
    assert (result["num_steps"], result["num_completions"], result["num_prompts"]) == (4, 64, 6)
    assert [line["step"] for line in lines] == [line["step"] for line in result["history"]] == [1, 2, 3, 4]
    for line in lines:
        assert {"score", "kl", "entropy", "num_tokens", "eos_share", "loss", "grad_norm"} <= set(line)
        assert not [key for key in line if "/" in key]
        assert 1 <= line["num_tokens"] <= 6 and line["num_steps"] == 4
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert 0 < lines[0]["entropy"] < math.log(320)
    json.dumps(result, allow_nan=False)


def test_group_resume_after_a_kill_equals_uninterrupted(models, uninterrupted, tmp_path):
    from tasks.training.group import train_group

    class Killed(Exception):
        pass

    def kill_at_step_3(line: dict) -> None:
        if line["step"] == 3:
            raise Killed

    algorithm, root, expected, _ = uninterrupted
    points = tmp_path / "points"
    with pytest.raises(Killed):
        train_group(algorithm, CONFIG, PROMPTS, *models, tmp_path / "model", 0, Supervision(kill_at_step_3, points))
    steps: list[int] = []
    watched = Supervision(lambda line: steps.append(line["step"]), points)
    result = train_group(algorithm, CONFIG, PROMPTS, *models, tmp_path / "model", 0, watched)
    assert steps == [3, 4]
    assert without_seconds(result) == without_seconds(expected)
    assert digest(tmp_path / "model") == digest(root / "model")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_group_raises_the_score(algorithm, models, tmp_path):
    from tasks.training.group import train_group

    config = CONFIG.model_copy(update={"num_steps": 25, "batch_size": 32, "micro_batch_size": 32})
    result = train_group(algorithm, config, PROMPTS, *models, tmp_path / "model", 0, UNWATCHED)
    scores = [line["score"] for line in result["history"]]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.5


def test_group_with_lora_keeps_a_plain_model_and_starts_at_the_sl_policy(models, tmp_path):
    from tasks.training.folders import load_policy
    from tasks.training.group import train_group

    config = CONFIG.model_copy(update={"lora_rank": 4, "learning_rate": 1e-2, "num_steps": 2})
    result = train_group("rloo", config, PROMPTS, *models, tmp_path / "model", 0, UNWATCHED)
    assert result["history"][0]["kl"] == pytest.approx(0, abs=1e-5)  # the reference is the disabled adapter
    assert abs(result["history"][1]["kl"]) > 1e-6
    before, after = load_policy(models[0]).state_dict(), load_policy(tmp_path / "model").state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])


def test_group_two_processes_share_a_batch_and_save_one_model(models, tmp_path):
    from tasks.training.examples import PromptExample, write_examples
    from tasks.training.folders import load_policy
    from tasks.training.job import TrainingJob
    from tasks.training.launch import launch
    from tasks.training.launch_config import LaunchConfig

    job = TrainingJob(
        kind="rloo",
        config=CONFIG.model_copy(update={"group_size": 16, "num_steps": 2}).model_dump(mode="json"),
        examples=write_examples(tmp_path / "prompts.jsonl", [PromptExample(prompt=prompt) for prompt in PROMPTS]),
        model=models[0],
        reward=models[1],
        output=tmp_path / "model",
        seed=0,
    )
    lines: list[dict] = []
    result = launch(job, LaunchConfig(num_processes=2, tracker="none"), lines.append)
    assert result["history"] == lines and [line["step"] for line in lines] == [1, 2]
    # a group of 16 is a whole batch, of which each process samples eight: it is one group only if they exchange rewards
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5) and abs(lines[1]["kl"]) > 1e-6
    assert result["num_completions"] == 32
    assert load_policy(tmp_path / "model").state_dict().keys() == load_policy(models[0]).state_dict().keys()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_group_trains_in_bfloat16_with_checkpointed_activations_and_adapters(algorithm, models, tmp_path):
    from tasks.training.folders import load_policy
    from tasks.training.group import train_group

    settings = {"precision": "bfloat16", "gradient_checkpointing": True, "lora_rank": 2, "num_steps": 1}
    result = train_group(algorithm, CONFIG.model_copy(update=settings), PROMPTS, *models, tmp_path, 0, UNWATCHED)
    assert result["history"][0]["grad_norm"] > 0
    before, after = load_policy(models[0]).state_dict(), load_policy(tmp_path).state_dict()
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])


def test_grpo_advantage_is_the_reward_in_units_of_its_groups_spread(models, tmp_path):
    trainer, encoded = trainer_of("grpo", CONFIG, models, tmp_path)
    batch = trainer._generate_and_score_completions([{"prompt": encoded[0]}] * 4 + [{"prompt": encoded[1]}] * 4)
    rewards = rewards_of(trainer, [encoded[0]] * 4 + [encoded[1]] * 4, batch).view(2, 4)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    assert torch.allclose(batch["advantages"], expected.flatten(), atol=1e-4)
    assert expected.abs().max() > 0.1


def test_group_keeps_the_generation_settings_of_the_sl_policy(models, uninterrupted):
    _, root, _, _ = uninterrupted
    kept = json.loads((root / "model" / "generation_config.json").read_text())
    given = json.loads((models[0] / "generation_config.json").read_text())
    assert kept == given


def test_group_counts_long_prompts_and_refuses_when_none_is_left(models, tmp_path):
    from tasks.training.group import train_group

    long = [Message(role="user", content="x" * 100)]
    config = CONFIG.model_copy(update={"num_steps": 1, "max_prompt_tokens": 40})
    result = train_group("rloo", config, [*PROMPTS, long], *models, tmp_path / "model", 0, UNWATCHED)
    assert (result["num_prompts"], result["num_too_long"]) == (6, 1)
    with pytest.raises(ValueError, match=r"rloo: none of 1 prompts fits 40 tokens; raise max_prompt_tokens"):
        train_group("rloo", config, [long], *models, tmp_path / "none", 0, UNWATCHED)


def test_group_refuses_a_reward_model_with_another_vocabulary(models, tmp_path):
    import shutil

    from tasks.training.group import train_group

    other = shutil.copytree(models[1], tmp_path / "reward")
    tokenizer = load_tokenizer(other)
    tokenizer.add_tokens(["aa"])
    tokenizer.save_pretrained(other)
    with pytest.raises(ValueError, match=r"grpo: reward model .* different vocabularies"):
        train_group("grpo", CONFIG, PROMPTS, models[0], other, tmp_path / "model", 0, UNWATCHED)
