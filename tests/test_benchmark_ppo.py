"""The benchmark of PPO does the same work in every column and measures what it says, on a tiny model."""

import time
from pathlib import Path

import pytest

from benchmarks.ppo_child import Job
from benchmarks.ppo_outcome import Outcome, difference, outcome
from benchmarks.ppo_tables import check_same_work, nearest, ratios, spread
from benchmarks.ppo_turns import TRL_PYTHON, Child, take_turns
from benchmarks.trl_ppo import standardised
from tasks.training.encode import encode_prompt, load_tokenizer
from tasks.training.folders import load_scalar_model
from tasks.training.rl_config import PPOConfig
from tasks.training.scoring import load_scale, raw_scores
from tests.ppo_world import PROMPTS, likes_a, make_policy, make_reward

CONFIG = PPOConfig(
    num_updates=3,
    batch_size=8,
    mini_batch_size=4,
    micro_batch_size=4,
    num_epochs=2,
    max_tokens=6,
    learning_rate=2e-3,
    value_learning_rate=5e-3,
    eval_prompts=0,
)
STEPS = 3 * 2 * 2  # updates, epochs, mini-batches


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    root = tmp_path_factory.mktemp("models")
    policy = make_policy(root)
    reward = make_reward(root / "reward", policy, likes_a)
    tokenizer = load_tokenizer(policy)
    mean, std = load_scale(reward)
    return Job(
        column="",
        policy=str(policy),
        reward=str(reward),
        score_mean=mean,
        score_std=std,
        prompts=[[message.model_dump() for message in prompt] for prompt in PROMPTS],
        prompt_ids=[encode_prompt(tokenizer, prompt) for prompt in PROMPTS],
        settings=CONFIG.model_dump(mode="json"),
        seed=0,
        output=str(root / "trained"),
    )


def test_children_do_the_work_asked_for_and_book_all_of_its_time(job, tmp_path):
    ran = take_turns([job._replace(column="solon", output=str(tmp_path / "model")), job._replace(column="floor")], 1)
    assert {(one.figures["num_updates"], one.figures["optimizer_steps"]) for one in ran.values()} == {(3, STEPS)}
    assert all(one.figures["sections"][name] > 0 for one in ran.values() for name in ("sample", "measure", "optimise"))
    figures, seconds = ran["solon"]
    assert sum(figures["sections"].values()) == pytest.approx(figures["loop_cpu_seconds"], rel=0.1)
    assert figures["loop_seconds"] < seconds
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_child_that_fails_ends_all_and_says_why(job, tmp_path):
    broken = job._replace(column="solon", policy=str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"benchmarks.solon_ppo \(solon\) failed with exit code 1\n(.|\n)*nowhere"):
        take_turns([job._replace(column="floor"), broken], threads=1)


def test_wait_for_the_next_turn_is_nobody_s_time(job):
    child, slept = Child(job._replace(column="floor"), Path(job.output).parent, threads=1), 1.0
    try:
        assert child.turn()
        since = time.monotonic()
        time.sleep(slept)
        while child.turn():
            pass
        passed = time.monotonic() - since
    finally:
        child.kill()
    assert child.result().figures["loop_seconds"] <= passed - slept


@pytest.mark.skipif(not TRL_PYTHON.exists(), reason="TRL 1.12 has an environment of its own, made by `make bench-ppo`")
@pytest.mark.parametrize("column", ["trl", "trl-without-collect"])
def test_trl_child_makes_as_many_optimizer_steps_as_solon(job, tmp_path, column):
    ran = take_turns([job._replace(column=column, output=str(tmp_path / "model"))], threads=1)
    figures = ran[column].figures
    assert (figures["num_updates"], figures["optimizer_steps"]) == (3, STEPS)
    assert all(figures["sections"][name] > 0 for name in ("sample", "measure", "optimise"))
    trained = outcome(tmp_path / "model", Path(job.policy), Path(job.reward), job.prompt_ids, CONFIG, seed=0)
    assert trained.kl != 0


def test_standardised_head_scores_as_solon_does(job):
    import torch

    ids = [[*ids, 70, 71, 4] for ids in job.prompt_ids[:3]]
    raw = raw_scores(load_scalar_model(Path(job.reward)).eval(), ids)
    model = standardised(load_scalar_model(Path(job.reward)).eval(), job.score_mean, job.score_std)
    with torch.no_grad():
        scores = [model.score(model.base_model(torch.tensor([row])).last_hidden_state)[0, -1].item() for row in ids]
    assert scores == pytest.approx([(score - job.score_mean) / job.score_std for score in raw], abs=1e-5)


def test_outcome_of_the_sl_policy_itself_is_at_no_distance(job):
    found = outcome(Path(job.policy), Path(job.policy), Path(job.reward), job.prompt_ids, CONFIG, seed=0)
    assert found.kl == 0
    assert 0 < found.num_tokens <= CONFIG.max_tokens


def test_outcome_of_a_completion_that_did_not_end_costs_the_penalty(job):
    cut = CONFIG.model_copy(update={"max_tokens": 1})
    free = cut.model_copy(update={"missing_eos_penalty": 0.0})
    penalised, unpenalised = (
        outcome(Path(job.policy), Path(job.policy), Path(job.reward), job.prompt_ids, config, seed=0)
        for config in (cut, free)
    )
    assert penalised.ended == 0
    assert unpenalised.score - penalised.score == pytest.approx(1, abs=1e-5)


def test_tables_of_unequal_work_are_refused():
    runs = [run_of("trl", 20, 20), run_of("trl-without-collect", 20, 80), run_of("solon", 20, 80)]
    with pytest.raises(SystemExit, match="expected the same work"):
        check_same_work(runs)
    check_same_work([run_of("trl", 20, 80), *runs[1:], run_of("floor", 4, 16)])


def test_ratios_pair_the_seeds():
    runs = [run_of("solon", 1, 1, seed=1, loop=2.0), run_of("solon", 1, 1, seed=0, loop=1.0)]
    runs += [run_of("trl", 1, 1, seed=0, loop=3.0), run_of("trl", 1, 1, seed=1, loop=8.0)]
    assert ratios(runs, "trl", lambda run: run.figures["loop_seconds"]) == [3.0, 4.0]


def test_nearest_is_the_last_policy_within_a_distance():
    path = {update: outcome_at(kl) for update, kl in ((2, 0.1), (4, 0.4), (6, 0.6))}
    solon, sl = run_of("solon", 7, 1)._replace(path=path, outcome=outcome_at(0.7)), outcome_at(0.0)
    assert nearest(solon, 0.5, sl) == (4, path[4])
    assert nearest(solon, 9.0, sl) == (7, solon.outcome)
    assert nearest(solon, 0.05, sl) == (0, sl)


def test_difference_is_paired_by_prompt():
    theirs = outcome_at(0.0)._replace(scores=(1.0, 5.0, 9.0))
    less, half = difference(theirs._replace(scores=(2.0, 6.0, 11.0)), theirs)
    assert less == pytest.approx(4 / 3)
    assert half == pytest.approx(1.96 * (1 / 3) ** 0.5 / 3**0.5)  # of 1, 1, 2


def test_spread_shows_a_range_only_where_there_is_one():
    assert spread([1.0, 3.0, 2.0]) == "2.0 (1.0 to 3.0)"
    assert spread([1.01, 1.02]) == "1.0"


def outcome_at(kl: float) -> Outcome:
    return Outcome(score=1.0, kl=kl, ended=1.0, num_tokens=9.0)


def run_of(column: str, updates: int, steps: int, seed: int = 0, loop: float = 1.0):  # type: ignore[no-untyped-def]
    from benchmarks.ppo import Run

    figures = {"num_updates": updates, "optimizer_steps": steps, "loop_seconds": loop}
    return Run(column, seed, figures, 0.0, None, {})
