"""DPO: the loss and its gradient by hand, TRL's own where labels are sure, our tokens, resuming."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from tasks.schema import Message
from tasks.training.encode import encode_completion, encode_prompt, load_tokenizer
from tasks.training.examples import PreferenceExample
from tasks.training.folders import load_policy
from tasks.training.rl_config import DPOConfig
from tasks.training.supervision import UNWATCHED, Leaving, Supervision
from tests.tiny_model import make_tiny_model

CONFIG = DPOConfig(
    epochs=2, learning_rate=2e-3, batch_size=8, micro_batch_size=4, beta=0.5, max_tokens=64, checkpoint_every=3
)


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def preferences(count: int, target_prob: float = 0.9) -> list[PreferenceExample]:
    """ "yes" is better than "no", whichever side it is on; prompts and so lengths differ."""
    rows = []
    for i in range(count):
        sides = ("yes", "no", target_prob) if i % 2 else ("no", "yes", 1 - target_prob)
        prompt = user("go" * (1 + i % 5))
        rows.append(PreferenceExample(prompt=prompt, chosen=sides[0], rejected=sides[1], target_prob=sides[2]))
    return rows


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def uninterrupted(base, tmp_path_factory):
    from tasks.training.dpo import train_dpo

    root = tmp_path_factory.mktemp("dpo")
    lines: list[dict] = []
    result = train_dpo(CONFIG, preferences(48), base, root / "model", 0, Supervision(lines.append, root / "points"))
    return root, result, lines


def trainer_of(config, base, tmp_path, examples, seed=0):
    from tasks.training.dpo import encode_pair, make_trainer

    tokenizer = load_tokenizer(base)
    rows = [encode_pair(tokenizer, example, config.max_tokens, config.soft_labels) for example in examples]
    return make_trainer(config, rows, tokenizer, base, str(tmp_path), seed), rows


def summed(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """The completion's log-probability, a token at a time, without padding or company."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) + i - 1, token] for i, token in enumerate(completion))


def test_dpo_margin_is_beta_times_the_difference_of_log_ratios():
    from tasks.training.soft_dpo import dpo_margins

    # two comparisons, chosen then rejected: (-2 - -3) - (-5 - -4) = 2 and (-1 - -1) - (-3 - -6) = -3
    policy, reference = torch.tensor([-2.0, -1.0, -5.0, -3.0]), torch.tensor([-3.0, -1.0, -4.0, -6.0])
    assert dpo_margins(policy, reference, beta=0.5).tolist() == [1.0, -1.5]


def test_soft_dpo_loss_is_the_weighted_cross_entropy_with_the_label():
    from tasks.training.soft_dpo import soft_dpo_loss

    loss = soft_dpo_loss(torch.tensor([1.0, -1.5]), torch.tensor([0.8, 1.0]), torch.tensor([0.5, 1.5]))
    first = -0.8 * math.log(1 / (1 + math.exp(-1))) - 0.2 * math.log(1 / (1 + math.exp(1)))
    second = -math.log(1 / (1 + math.exp(1.5)))
    assert loss.item() == pytest.approx((0.5 * first + 1.5 * second) / 2, abs=1e-6)


def test_soft_dpo_gradient_is_the_weighted_surplus_of_the_policys_probability():
    from tasks.training.soft_dpo import dpo_margins, soft_dpo_loss

    policy = torch.tensor([-2.0, -1.0, -5.0, -3.0], requires_grad=True)
    reference = torch.tensor([-3.0, -1.0, -4.0, -6.0])
    weight = torch.tensor([0.5, 1.5])
    soft_dpo_loss(dpo_margins(policy, reference, 0.5), torch.tensor([0.8, 1.0]), weight).backward()
    # d loss / d log pi_chosen = w beta (s(m) - p) / rows, of the rejected one the negative; m = 1 and -1.5
    first = 0.5 * 0.5 * (1 / (1 + math.exp(-1)) - 0.8) / 2
    second = 1.5 * 0.5 * (1 / (1 + math.exp(1.5)) - 1.0) / 2
    assert policy.grad.tolist() == pytest.approx([first, second, -first, -second], abs=1e-7)


def test_dpo_loss_of_a_batch_is_what_the_two_models_say_row_by_row(base, tmp_path):
    examples = [
        row.model_copy(update={"weight": weight})
        for row, weight in zip(preferences(4), (1.0, 2.0, 3.0, 2.0), strict=True)
    ]
    trainer, rows = trainer_of(CONFIG, base, tmp_path, examples)
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight.mul_(1.5)  # so that policy and reference differ
    reference, expected = load_policy(base), 0.0
    for row, weight in zip(rows, (0.5, 1.0, 1.5, 1.0), strict=True):  # their mean is 1
        prompt = row["prompt_ids"]
        ratios = [
            (summed(trainer.model, prompt, row[side]) - summed(reference, prompt, row[side])).item()
            for side in ("chosen_ids", "rejected_ids")
        ]
        margin, p = CONFIG.beta * (ratios[0] - ratios[1]), row["target_prob"]
        expected += weight * (p * math.log1p(math.exp(-margin)) + (1 - p) * math.log1p(math.exp(margin))) / 4
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(4)).item() == pytest.approx(
        expected, rel=1e-4
    )


def test_dpo_figures_are_nats_of_the_completions_without_their_prompts(base, tmp_path):
    from tasks.training.dpo import encode_pair, train_dpo

    config = CONFIG.model_copy(update={"epochs": 1, "batch_size": 4})
    result = train_dpo(config, preferences(4), base, tmp_path / "model", 0, UNWATCHED)
    tokenizer, reference = load_tokenizer(base), load_policy(base)
    rows = [encode_pair(tokenizer, example, 64, soft_labels=True) for example in preferences(4)]
    for side in ("chosen", "rejected"):
        sums = [summed(reference, row["prompt_ids"], row[f"{side}_ids"]).item() for row in rows]
        assert result["history"][0][f"{side}_logprob"] == pytest.approx(sum(sums) / 4, rel=1e-4)


def test_dpo_loss_of_sure_labels_is_trls_own(base, tmp_path):
    from datasets import Dataset
    from trl import DPOConfig as TrlConfig
    from trl import DPOTrainer

    config = CONFIG.model_copy(update={"soft_labels": False})
    ours, rows = trainer_of(config, base, tmp_path, [row for row in preferences(8) if row.target_prob > 0.5])

    class OnIds(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    arguments = TrlConfig(output_dir=str(tmp_path), beta=0.5, bf16=False, use_cpu=True, report_to="none")
    theirs = OnIds(
        model=load_policy(base),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=ours.processing_class,
    )
    losses = []
    for trainer in (ours, theirs):
        with torch.no_grad():
            trainer.model.get_output_embeddings().weight.mul_(1.5)
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(4))
        loss.backward()
        losses.append((loss.item(), trainer.model.get_output_embeddings().weight.grad))
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-6)
    assert torch.allclose(losses[0][1], losses[1][1], atol=1e-6)


def test_dpo_row_counts_the_same_in_a_short_batch_and_a_blank_one_not_at_all(base, tmp_path):
    from tasks.training.dpo import train_dpo

    examples = [row.model_copy(update={"weight": 1.0 + i % 3}) for i, row in enumerate(preferences(11))]
    results = []
    for size in (1, 2, 4, 8):  # the last step of a pass has three rows: of 2 + 1, of 3, ...
        config = CONFIG.model_copy(update={"micro_batch_size": size})
        results.append(train_dpo(config, examples, base, tmp_path / str(size), 0, UNWATCHED))
    for result in results[1:]:
        for ours, theirs in zip(result["history"], results[0]["history"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
    assert [line["step"] for line in results[0]["history"]] == [1, 2, 3, 4]


def test_dpo_pair_is_encoded_as_it_is_sampled_and_ends_with_eos(base):
    from tasks.training.dpo import encode_pair

    tokenizer = load_tokenizer(base)
    example = PreferenceExample(prompt=user("hm"), chosen="yes", rejected="no", target_prob=0.7, weight=2.0)
    row = encode_pair(tokenizer, example, 64, soft_labels=True)
    assert row["prompt_ids"] == encode_prompt(tokenizer, user("hm"))
    assert row["chosen_ids"] == encode_completion(tokenizer, "yes") and row["chosen_ids"][-1] == tokenizer.eos_token_id
    assert row["rejected_ids"] == encode_completion(tokenizer, "no")
    assert (row["target_prob"], row["weight"]) == (0.7, 2.0)
    length = len(row["prompt_ids"]) + len(row["chosen_ids"])
    assert encode_pair(tokenizer, example, length, soft_labels=True) == row
    assert encode_pair(tokenizer, example, length - 1, soft_labels=True) is None


@pytest.mark.parametrize(("prob", "expected"), [(0.51, 1.0), (0.49, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_dpo_hard_labels_are_sure_but_where_undecided(base, prob, expected):
    from tasks.training.dpo import encode_pair

    example = PreferenceExample(prompt=user("hm"), chosen="yes", rejected="no", target_prob=prob)
    assert encode_pair(load_tokenizer(base), example, 64, soft_labels=False)["target_prob"] == expected


def test_dpo_learns_the_labels_probability_and_not_certainty(base, tmp_path):
    from tasks.training.dpo import train_dpo

    config = CONFIG.model_copy(update={"epochs": 8})
    result = train_dpo(config, preferences(48, target_prob=0.7), base, tmp_path / "model", 0, UNWATCHED)
    tokenizer, policy, reference = load_tokenizer(base), load_policy(tmp_path / "model"), load_policy(base)
    prompt = encode_prompt(tokenizer, user("gogo"))
    ratios = []
    for word in ("yes", "no"):
        completion = encode_completion(tokenizer, word)
        ratios.append((summed(policy, prompt, completion) - summed(reference, prompt, completion)).item())
    assert 1 / (1 + math.exp(-CONFIG.beta * (ratios[0] - ratios[1]))) == pytest.approx(0.7, abs=0.05)
    assert result["history"][-1]["accuracy"] == 1.0
    assert result["last_loss"] == pytest.approx(-0.7 * math.log(0.7) - 0.3 * math.log(0.3), abs=0.02)


def test_dpo_starts_at_log_2_and_tells_of_every_step(uninterrupted):
    _, result, lines = uninterrupted
    assert result["first_loss"] == pytest.approx(math.log(2), abs=1e-5)  # the policy is its own reference
    assert result["algorithm"] == "dpo" and result["num_steps"] == len(result["history"]) == 12
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert {"loss", "grad_norm", "accuracy", "margin", "chosen_logprob", "rejected_logprob"} <= set(lines[-1])
    json.dumps(result, allow_nan=False)


def test_dpo_resume_after_a_kill_equals_uninterrupted(base, uninterrupted, tmp_path):
    from tasks.training.dpo import train_dpo

    class Killed(Exception):
        pass

    def kill_at_step_8(line: dict) -> None:
        if line["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        train_dpo(
            CONFIG, preferences(48), base, tmp_path / "model", 0, Supervision(kill_at_step_8, tmp_path / "points")
        )
    steps: list[int] = []
    watched = Supervision(lambda line: steps.append(line["step"]), tmp_path / "points")
    result = train_dpo(CONFIG, preferences(48), base, tmp_path / "model", 0, watched)
    root, expected, _ = uninterrupted
    assert steps == [7, 8, 9, 10, 11, 12]
    assert without_seconds(result) == without_seconds(expected)
    assert digest(tmp_path / "model") == digest(root / "model")


def without_seconds(result: dict) -> dict:
    history = [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in result["history"]]
    return {**result, "history": history}


def test_dpo_that_is_asked_to_leave_writes_a_resume_point(base, tmp_path):
    from tasks.training.dpo import train_dpo

    with pytest.raises(Leaving):
        train_dpo(
            CONFIG,
            preferences(48),
            base,
            tmp_path / "model",
            0,
            Supervision(checkpoints=tmp_path / "points", leaving=lambda: True),
        )
    assert [path.name for path in (tmp_path / "points").glob("step-*")] == ["step-00000001"]


def test_dpo_two_processes_make_what_one_makes(base, tmp_path):
    from tasks.training.dpo import train_dpo
    from tasks.training.examples import write_examples
    from tasks.training.job import TrainingJob
    from tasks.training.launch import launch
    from tasks.training.launch_config import LaunchConfig

    examples = [row.model_copy(update={"weight": 1.0 + i % 3}) for i, row in enumerate(preferences(21))]
    one = train_dpo(CONFIG, examples, base, tmp_path / "one", 0, UNWATCHED)
    job = TrainingJob(
        kind="dpo",
        config=CONFIG.model_dump(mode="json"),
        examples=write_examples(tmp_path / "examples.jsonl", examples),
        model=base,
        output=tmp_path / "two",
        seed=0,
    )
    two = launch(job, LaunchConfig(num_processes=2, tracker="none"), lambda line: None)
    assert [line["step"] for line in two["history"]] == [1, 2, 3, 4, 5, 6]  # of five rows each third one
    for ours, theirs in zip(two["history"], one["history"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    weights = [load_policy(tmp_path / name).state_dict() for name in ("one", "two")]
    for name, weight in weights[0].items():
        # AdamW divides by the root of tiny second moments, where rounding shows: weights moved by up to 0.012
        assert torch.allclose(weight, weights[1][name], atol=5e-4, rtol=0), name


def test_dpo_counts_long_comparisons_and_refuses_when_none_is_left(base, tmp_path):
    from tasks.training.dpo import train_dpo

    long = PreferenceExample(prompt=user("x" * 100), chosen="yes", rejected="no", target_prob=0.9)
    config = CONFIG.model_copy(update={"epochs": 1})
    result = train_dpo(config, [*preferences(8), long], base, tmp_path / "model", 0, UNWATCHED)
    assert (result["num_examples"], result["num_too_long"], result["num_steps"]) == (8, 1, 1)
    with pytest.raises(ValueError, match="none of 1 comparisons fits 64 tokens; raise max_tokens"):
        train_dpo(config, [long], base, tmp_path / "none", 0, UNWATCHED)


def test_dpo_with_lora_keeps_a_plain_model_that_learnt(base, tmp_path):
    from tasks.training.dpo import train_dpo

    config = CONFIG.model_copy(update={"lora_rank": 4, "learning_rate": 2e-2})
    result = train_dpo(config, preferences(48), base, tmp_path / "model", 0, UNWATCHED)
    assert result["first_loss"] == pytest.approx(math.log(2), abs=1e-5)  # the reference is the disabled adapter
    assert result["last_loss"] < 0.5
    assert not list((tmp_path / "model").glob("adapter*"))
    before, after = load_policy(base).state_dict(), load_policy(tmp_path / "model").state_dict()
    assert before.keys() == after.keys()
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"])  # adapters are on the layers alone
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
