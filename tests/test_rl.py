"""The second phase: which prompts it learns from, what enters its identity, and several rounds of it."""

from pathlib import Path

import pytest

from flows.align import align
from flows.plan import make_plan
from tasks.rl import RLStage, training_prompts
from tasks.schema import DatasetRef, Message, Metric, ModelRef, Preference, Prompt
from tasks.stage import RunContext
from tasks.store import Store
from tasks.store.identity import table_to_rows
from tasks.training.rl_config import RLConfig
from tests.aligned import small_config


def prompt(number: int, kind: str, **changes: object) -> Prompt:
    fields: dict[str, object] = {
        "row_id": f"train/{kind}{number}",
        "reuse_key": "k",
        "prompt_id": f"{kind}{number}",
        "kind": kind,
        "messages": [Message(role="user", content=f"{kind} {number}")],
        "source": "s",
        "split": "train",
    }
    return Prompt.model_validate(fields | changes)


PROMPTS = [prompt(i, "red_team") for i in range(30)] + [prompt(i, "helpful") for i in range(10)]


def shares(prompts: list[Prompt]) -> tuple[int, int]:
    return sum(row.kind == "red_team" for row in prompts), sum(row.kind == "helpful" for row in prompts)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(None, (30, 10)), (0.5, (10, 10)), (0.25, (30, 10)), (0.1, (30, 3)), (0, (30, 0)), (1, (0, 10))],
)
def test_rl_helpful_share_cuts_the_kind_there_is_too_much_of(share, expected):
    chosen = training_prompts(PROMPTS, share)
    assert shares(chosen) == expected
    assert chosen == [row for row in PROMPTS if row in chosen]
    assert {row.prompt_id for row in training_prompts(PROMPTS[::-1], share)} == {row.prompt_id for row in chosen}


def test_rl_held_out_and_unusable_prompts_never_train():
    rows = [*PROMPTS, prompt(99, "helpful", split="held_out"), prompt(98, "helpful", status="unparsable", reason="r")]
    assert training_prompts(rows, None) == PROMPTS


def test_rl_share_of_a_kind_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match=r"helpful_share is 0\.5, but there are no usable helpful prompts; give some"):
        training_prompts(PROMPTS[:30], 0.5)


def version(**settings: object) -> str:
    ref = DatasetRef(dataset="prompts", version="a" * 64, content_hash="c", rows=1)
    policy = ModelRef(model="models/sl", version="b" * 64, content_hash="d")
    stage = RLStage(run=RunContext(), prompts=ref, policy=policy, config=RLConfig.model_validate(settings))
    return stage.derivation(None).version  # type: ignore[arg-type]


def test_rl_settings_of_other_algorithms_and_of_where_it_runs_change_no_version():
    assert version() == version(group={"kl_coef": 1.0}, dpo={"beta": 9.0})
    assert version() == version(ppo={"checkpoint_every": 3, "rollout_memory_share": 0.7})
    assert len({version(), version(ppo={"kl_coef": 1.0}), version(algorithm="rloo"), version(algorithm="grpo")}) == 4
    assert version(algorithm="rloo") == version(algorithm="rloo", ppo={"kl_coef": 1.0})
    assert version(algorithm="dpo") == version(algorithm="dpo", helpful_share=0.5) != version(helpful_share=0.5)


@pytest.mark.long
@pytest.mark.usefixtures("prefect_home")
def test_rl_second_round_compares_the_newest_policy_and_learns_from_both_rounds(tmp_path):
    last = "rl.ppo.eval_prompts=0"  # the best of so short a training may be its start, whose pairs exist already
    config = small_config(tmp_path, "rl.num_rounds=2", "reward.second_model_share=0.3", last)
    result = align(config)
    store = Store.open(config.run.store)
    made = {name: [s for s in result.stages if s.stage == name] for name in ("compare", "preferences", "reward", "rl")}
    assert {name: len(stages) for name, stages in made.items()} == {
        "compare": 2,
        "preferences": 2,
        "reward": 2,
        "rl": 2,
    }
    first, second = made["rl"]
    sources = [
        store.manifest(s.dataset, s.version).derivation for s in (*made["compare"], *made["reward"], first, second)
    ]
    policies = [sources[0].cites["policy"], sources[1].cites["policy"]]
    assert policies[0].startswith("models/sl/") and policies[1] == f"models/rl/{first.version}"
    refs = [store.manifest(s.dataset, s.version).dataset_ref() for s in made["preferences"]]
    assert set(sources[2].inputs) == {"preferences"} and set(sources[3].inputs) == {"preferences", "earlier.round_0"}
    assert sources[3].inputs["earlier.round_0"].version == refs[0].version
    assert sources[5].cites["policy"].startswith("models/sl/")
    origins = [{row.origin for row in table_to_rows(store.read(ref), Preference)} for ref in refs]
    assert origins == [{"ai", "human"}, {"ai"}]
    held_out = [s for s in result.stages if s.stage == "held_out_reward"]
    assert len(held_out) == 2
    agreement = store.manifest("models/held_out_reward", held_out[1].version).metrics["final"]
    assert 0 <= agreement["held_out_models_agree"] <= 1
    assert sources[5].cites["held_out_reward"] == f"models/held_out_reward/{held_out[1].version}"


@pytest.mark.usefixtures("prefect_home")
def test_policies_along_the_way_are_kept_planned_for_and_measured_beside_the_result(tmp_path):
    last = "rl.ppo.eval_prompts=0"  # so the result is the policy after the last update
    elsewhere = "models.references=[{name: elsewhere, model: tasks/micro/model}]"  # the very model that base is
    config = small_config(tmp_path, "sft.training.keep_every=2", "rl.ppo.keep_every=1", last, elsewhere)
    planned = [stage.stage for stage in make_plan(config).stages]
    result = align(config)
    assert list(result.policies) == ["base", "sl@2", "sl", "rl@1", "rl@2", "rl", "elsewhere"]
    assert planned == [stage.stage for stage in result.stages]
    first, second, rl = (result.policies[name] for name in ("rl@1", "rl@2", "rl"))
    assert first.content_hash != second.content_hash == rl.content_hash
    store = Store.open(config.run.store)
    metrics = table_to_rows(store.read(result.metrics), Metric)
    for judge in ("micro_oracle", "feedback"):
        rated = [m.policy for m in metrics if (m.judge, m.measure) == (judge, "harmlessness_elo")]
        assert rated == list(result.policies)
    elos = {m.policy: m.value for m in metrics if (m.judge, m.measure) == ("feedback", "helpfulness_elo")}
    assert elos["base"] == 0 and elos["rl@2"] == pytest.approx(elos["rl"], abs=1e-6)  # the same model, the same draws
    assert elos["elsewhere"] == pytest.approx(0, abs=1e-6)
    page = Path(result.report_path).read_text()
    assert "SL@2" in page and "RL@1" in page and "The policy was optimised to please feedback" in page
    assert make_plan(config).is_fresh
    assert all(stage.reused for stage in align(config).stages)
