"""PPO's result is the best policy measured on prompts set aside; resumed, left or shared, it is the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.training.folders import load_policy
from tasks.training.ppo.best import BestPolicy
from tasks.training.ppo.checkpoint import trained
from tasks.training.ppo.model import with_adapters
from tasks.training.ppo.rules import best_evaluation
from tasks.training.ppo.trainer import train_ppo
from tasks.training.supervision import UNWATCHED, Leaving, Supervision
from tests import ppo_leaving as two_processes
from tests.ppo_leaving import PROMPTS
from tests.ppo_world import CONFIG, Models, digest, models_in, same_weights, with_rules


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    return models_in(tmp_path_factory.getbasetemp())


def test_prompts_that_are_measured_on_are_never_trained_on(models, tmp_path):
    prompts = PROMPTS + PROMPTS[::2]  # some come twice
    config = CONFIG.model_copy(update={"rollouts_kept": 32, "num_updates": 4, "eval_prompts": 64})
    kept = tmp_path / "rollouts.jsonl"
    result = train_ppo(config, prompts, models.policy, models.likes_a, tmp_path / "out", 0, UNWATCHED, kept)
    trained_on = {json.loads(line)["prompt"] for line in kept.read_text().splitlines()}
    aside = set(range(60)) - trained_on
    assert result["num_eval_prompts"] == len(aside) == 6  # a tenth
    assert result["num_prompts"] == 54
    assert not {prompts[i][0].content for i in aside} & {prompts[i][0].content for i in trained_on}
    assert [line["update"] for line in result["evaluations"]] == [0, 2, 4]


def test_measurements_of_an_unchanged_policy_are_equal(models, tmp_path):
    """The same random numbers each time: what differs between two measurements is the policy alone."""
    config = CONFIG.model_copy(update={"learning_rate": 1e-12, "num_updates": 3, "eval_every": 2})
    result = train_ppo(config, PROMPTS, models.policy, models.likes_a, tmp_path, 0, UNWATCHED)
    first, *others = result["evaluations"]
    assert [line["update"] for line in others] == [2, 3]  # the last too
    for line in others:
        assert line["score"] == pytest.approx(first["score"], abs=1e-4)
        assert line["num_tokens"] == first["num_tokens"]
    assert first["kl"] == pytest.approx(0, abs=1e-5)


def test_measured_scores_are_less_the_penalty_for_a_missing_eos(models, tmp_path):
    """At one token a completion none ends, so the penalty is the whole difference, for both reward models."""
    measured = []
    for penalty in (0.0, 2.0):
        config = CONFIG.model_copy(update={"missing_eos_penalty": penalty, "max_tokens": 1, "num_updates": 1})
        one = models.likes_a
        result = train_ppo(config, PROMPTS, models.policy, one, tmp_path, 0, UNWATCHED, held_out_reward=one)
        measured.append(result["evaluations"][0])
        assert measured[-1]["held_out_score"] == pytest.approx(measured[-1]["score"])  # the same model, here
    assert measured[0]["score"] - measured[1]["score"] == pytest.approx(2.0)


def test_log_lines_tell_of_measurements_and_of_every_update_once(models, tmp_path):
    lines: list[dict] = []
    config = CONFIG.model_copy(update={"num_updates": 3})
    train_ppo(config, PROMPTS, models.policy, models.likes_a, tmp_path, 0, Supervision(log=lines.append))
    assert [(line["step"], "score" in line, "eval_score" in line) for line in lines] == [
        (0, False, True),
        (1, True, False),
        (2, True, True),
        (3, True, True),
    ]
    assert all(isinstance(value, int | float) for line in lines for value in line.values())


class Killed(Exception):
    pass


def test_resume_after_the_best_was_found_equals_uninterrupted(models, tmp_path):
    """The best is neither the last nor the one at the resume point: it is known from `best.safetensors` alone."""
    slow = CONFIG.model_copy(update={"learning_rate": 1e-3})
    free = train_ppo(slow, PROMPTS, models.policy, models.likes_a, tmp_path / "free", 0, UNWATCHED)
    best = best_evaluation(CONFIG.rules, free["evaluations"])
    assert best and free["best_update"] == best["update"] > 2 and free["stopped"] is None
    _, early, *later = free["evaluations"]
    assert early["score"] > free["evaluations"][0]["score"] and min(line["kl"] for line in later) > early["kl"]
    limit = (early["kl"] + min(line["kl"] for line in later)) / 2
    config = with_rules(slow, window=100, max_kl=limit)  # later ones break a rule, and never for long enough to stop
    given = config, PROMPTS, models.policy, models.likes_a
    expected = train_ppo(*given, tmp_path / "whole", 0, UNWATCHED)
    assert expected["best_update"] == 2 and expected["num_updates"] == 8

    def kill(line: dict) -> None:
        if line["step"] == 7:
            raise Killed

    points = tmp_path / "points"
    with pytest.raises(Killed):
        train_ppo(*given, tmp_path / "model", 0, Supervision(kill, points))
    assert (points / "step-00000006" / "best.safetensors").samefile(points / "step-00000004" / "best.safetensors")
    steps: list[int] = []
    watched = Supervision(lambda line: steps.append(line["step"]), points)
    assert train_ppo(*given, tmp_path / "model", 0, watched) == expected
    assert steps == [7, 8]
    assert digest(tmp_path / "model") == digest(tmp_path / "whole")
    assert not same_weights(tmp_path / "model", tmp_path / "free")


def test_training_that_is_asked_to_leave_keeps_where_it_is_and_goes_on_from_there(models, tmp_path):
    config = CONFIG.model_copy(update={"num_updates": 5, "checkpoint_every": 100})
    given = config, PROMPTS, models.policy, models.likes_a
    expected = train_ppo(*given, tmp_path / "whole", 0, UNWATCHED)
    lines: list[dict] = []
    kept: list[Path] = []
    watched = Supervision(lines.append, tmp_path / "points", kept.append, lambda: lines[-1]["step"] == 3)
    with pytest.raises(Leaving, match="after update 3 of 5"):
        train_ppo(*given, tmp_path / "model", 0, watched)
    assert [line["step"] for line in lines] == [0, 1, 2, 3] and not (tmp_path / "model").exists()
    assert kept == [tmp_path / "points" / "step-00000003"]
    lines.clear()
    assert train_ppo(*given, tmp_path / "model", 0, Supervision(lines.append, tmp_path / "points")) == expected
    assert [line["step"] for line in lines] == [4, 5]
    assert digest(tmp_path / "model") == digest(tmp_path / "whole")


def test_held_out_reward_model_with_another_vocabulary_is_refused(models, tmp_path):
    other = Path(shutil.copytree(models.likes_a, tmp_path / "other"))
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"<|user|>"', '"<|human|>"'))
    (other / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    with pytest.raises(ValueError, match=r"held-out reward model .* different vocabularies"):
        train_ppo(CONFIG, PROMPTS, models.policy, models.likes_a, tmp_path, 0, UNWATCHED, held_out_reward=other)


def test_two_processes_measure_as_one_does_and_leave_together(models, tmp_path):
    """Three prompts are measured on by two processes; one of them alone is asked to leave."""
    for folder in (models.policy, models.likes_length, models.likes_brevity):
        shutil.copytree(folder, tmp_path / folder.name)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, "-m", "tests.ppo_leaving", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first["left"] == second["left"] == "ppo: asked to leave, left after update 2 of 4"
    assert first["steps"] == [0, 1, 2, 3, 4] and second["steps"] == []
    assert first["result"] == second["result"]
    one = train_ppo(
        two_processes.CONFIG,
        PROMPTS,
        models.policy,
        models.likes_length,
        tmp_path / "one",
        0,
        UNWATCHED,
        held_out_reward=models.likes_brevity,
    )
    assert one["num_eval_prompts"] == 3 and len(one["evaluations"]) == 3
    for measured, expected in zip(first["result"]["evaluations"], one["evaluations"], strict=True):
        del measured["entropy"], expected["entropy"]  # of unequal shares it counts a repeated prompt twice
        assert measured == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert first["result"]["best_update"] == one["best_update"]


def test_best_policy_with_adapters_comes_back_as_it_was(models, tmp_path):
    """Its adapters alone are kept; a resume point gives back the same policy to the bit."""
    torch.manual_seed(0)
    policy = with_adapters(load_policy(models.policy), CONFIG.model_copy(update={"lora_rank": 2}), "CAUSAL_LM")
    ids = torch.tensor([[5, 6, 7]])

    def move() -> torch.Tensor:
        with torch.no_grad():
            for parameter in trained(policy).values():
                parameter += 0.1 * torch.randn_like(parameter)
        return policy(ids).logits

    expected, best = move(), BestPolicy()
    best.take(policy, update=7)
    assert not torch.equal(move(), expected)
    best.write(tmp_path, earlier=None)
    assert (tmp_path / "best.safetensors").stat().st_size < 0.5 * (models.policy / "model.safetensors").stat().st_size
    loaded = BestPolicy.load(tmp_path)
    loaded.put_back(policy)
    assert loaded.update == 7 and torch.equal(policy(ids).logits, expected)
    better = move()
    best.take(policy, update=9)
    (tmp_path / "next").mkdir()
    best.write(tmp_path / "next", earlier=tmp_path)  # what the earlier resume point holds is another policy
    move()
    BestPolicy.load(tmp_path / "next").put_back(policy)
    assert torch.equal(policy(ids).logits, better)
