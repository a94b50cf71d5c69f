"""The sums of sizing, by hand for small numbers and by direction for large ones. Nothing is measured here."""

import pytest

from benchmarks.sizing import lines, settings
from tasks.planning.sizing import STAGES, Hardware, Sizing, least, operations_of, trainings
from tasks.planning.workload import Tokens, Workload, asked, stored_rows, trained_tokens
from tasks.training.config import SFTConfig
from tasks.training.preflight.memory import memory_parts, peak
from tasks.training.preflight.shape import ModelShape

WORK = Workload(
    red_team_prompts=10, helpful_prompts=5, helpful_samples=2, rounds=2, human_comparisons=3, pairs=1, ppo_updates=2,
    ppo_batch=4, held_out_prompts=1, policies=3, prompt_tokens=7, completion_tokens=11, request_tokens=13,
)  # fmt: skip


def llama(hidden: int, layers: int, inner: int, vocabulary: int = 32_000) -> ModelShape:
    """A Llama without grouped keys, by arithmetic."""
    layer, embedding = 4 * hidden**2 + 3 * hidden * inner, hidden * vocabulary
    return ModelShape(
        num_parameters=layers * layer + 2 * embedding, num_linear=layers * layer, num_head=embedding,
        num_embedding=embedding, largest_matrix=max(embedding, hidden * inner), largest_layer=max(layer, embedding),
        adapter_width=layers * (8 * hidden + 3 * (hidden + inner)), hidden=hidden, num_layers=layers, queries=hidden,
        keys=hidden, inner=inner, vocabulary=vocabulary, context=4096,
    )  # fmt: skip


SMALL, SEVEN = llama(2048, 16, 5632), llama(4096, 32, 11_008)


def sizing(shape: ModelShape = SEVEN, **hardware: float) -> Sizing:
    return Sizing(policy=shape, scorer=shape, work=Workload(), hardware=Hardware.model_validate(hardware))


def test_workload_tokens_of_generation_are_those_counted_by_hand():
    found = asked(WORK)
    assert found["respond"] == Tokens(20 * 7, 20 * 11)
    # twenty times: prompt, completion, request; then those, the critique and another request
    assert found["revise"] == Tokens(20 * ((7 + 11 + 13) + (7 + 11 + 13 + 11 + 13)), 2 * 20 * 11)
    assert found["compare"] == Tokens(20 * 7, 20 * 11)
    assert found["label"] == Tokens(20 * (7 + 22 + 13), 20)
    # three samples; each judged alone; each of three pairs of policies under two questions in two orders
    assert found["evaluate"] == Tokens(3 * 7 + 3 * (7 + 11 + 13) + 3 * 2 * 2 * (7 + 22 + 13), 33)


def test_workload_tokens_of_training_are_those_counted_by_hand():
    assert trained_tokens(WORK) == {"sft": 30 * 18, "reward": 2 * 13 * 18, "rl": 8 * 18}


def test_workload_rows_stored_are_one_a_row_of_each_stage():
    rows = {stage: number for stage, (number, _) in stored_rows(WORK).items()}
    assert rows["revise"] == 20 and rows["label"] == 20 and rows["reward"] == 13


def test_sizing_a_training_step_is_operations_over_what_is_achieved():
    config = SFTConfig(gradient_checkpointing=True)
    taken = sizing(flops=1e12, training_share=0.5).training_seconds("sft", config, 4)
    assert taken == pytest.approx(8 * SEVEN.num_parameters * trained_tokens(Workload())["sft"] / (0.5e12 * 4))


def test_sizing_operations_follow_what_is_trained_and_recomputed():
    assert operations_of(SFTConfig()) == 6
    assert operations_of(SFTConfig(gradient_checkpointing=True)) == 8
    assert operations_of(SFTConfig(gradient_checkpointing=True, lora_rank=4)) == 6


def test_sizing_writing_is_bound_by_memory_for_few_and_by_arithmetic_for_many():
    few, slow = sizing(sequences=1), sizing(sequences=1, bandwidth=3.35e11)
    written = Tokens(0, 1e6)
    assert slow.generation_seconds(written, 1) == pytest.approx(10 * few.generation_seconds(written, 1))
    many = {"sequences": 100_000, "bandwidth": 1e16}
    computed = 2 * SEVEN.num_parameters * 1e6 / (989e12 * 0.4)
    assert sizing(**many).generation_seconds(written, 1) == pytest.approx(computed)


def test_sizing_every_stage_is_there_once_and_in_order():
    assert tuple(found.stage for found in sizing().stages()) == STAGES


def test_sizing_gpus_hold_what_the_preflight_estimates():
    found = sizing()
    sft = next(stage for stage in found.stages() if stage.stage == "sft")
    config = trainings(found.work)["sft"][sft.way]
    room = found.hardware.device.bytes
    assert peak(memory_parts(found.described("sft", config, sft.gpus))) <= room
    assert sft.gpus == 1 or peak(memory_parts(found.described("sft", config, sft.gpus // 2))) > room


def test_sizing_the_papers_way_is_taken_where_it_fits():
    ways = {found.stage: found.way for found in sizing(SMALL).stages()}
    assert ways["sft"] == "all weights" and ways["rl"] == "PPO, all weights"


def test_sizing_what_fits_no_gpu_is_said_and_not_priced():
    for found in sizing(memory_gib=1.0, max_gpus=1).stages():
        assert (found.way, found.gpus, found.price) == ("does not fit", 0, 0.0)


def test_sizing_less_time_takes_more_gpus_and_at_least_as_much_money():
    patient = {found.stage: found for found in sizing(within_hours=1000).stages()}
    hasty = {found.stage: found for found in sizing(within_hours=2).stages()}
    assert hasty["revise"].gpus > patient["revise"].gpus and hasty["revise"].hours < patient["revise"].hours
    assert all(hasty[stage].price >= patient[stage].price for stage in STAGES)


def test_sizing_price_is_hours_times_gpus_times_price():
    found = sizing(gpu_hour_price=7.0).stages()[0]
    assert found.price == pytest.approx(found.hours * found.gpus * 7.0)


@pytest.mark.parametrize(("most", "expected"), [(64, 16), (8, 0)])
def test_sizing_least_is_the_smallest_power_of_two(most, expected):
    assert least(lambda count: count >= 9, most) == expected


def test_sizing_command_settings_reach_both_parts():
    work, hardware = settings(["work.rounds=2", "hardware.gpu_hour_price=1.5"])
    assert (work.rounds, hardware.gpu_hour_price) == (2, 1.5)


@pytest.mark.parametrize("setting", ["rounds=2", "work.rounds", "work.nothing=1", "hardware.training_share=2"])
def test_sizing_command_unknown_setting_is_refused(setting):
    with pytest.raises(ValueError):
        settings([setting])


def test_sizing_table_says_none_where_nothing_fits():
    hardware = Hardware(memory_gib=1.0, max_gpus=1)
    found = Sizing(policy=SEVEN, scorer=SEVEN, hardware=hardware).stages()
    *stages, total = lines("7B", found, hardware)
    assert all("| none |" in line for line in stages) and "**all**" in total
