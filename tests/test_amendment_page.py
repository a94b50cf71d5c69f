"""What people read before they decide, and which move a change means: without a server."""

from pathlib import Path

import pytest

from constitutions import Constitution
from flows.amendment_page import amendment_text, form_text
from flows.config import AlignConfig, ConfigError
from flows.constitution_changed import AmendmentConfig, Change, constitution_changed, find, follow, preset, subject_of
from tasks.planning import Plan
from tasks.planning.plan import Cost, StagePlan
from tasks.publish import Published, publish
from tasks.store import Store
from tests.aligned import small_config
from tests.lineage_world import small_constitution

OLD = small_constitution()
NEW = small_constitution(tone_1={"comparison_question": "Which is <b>kinder</b> | or better under tone-1?"})


def stage(name: str, state: str = "stale", **fields) -> StagePlan:
    given = {"reasons": ["tone-1 reworded"], "rows": 8, "rows_to_make": 4, "exact": True, "spends": True, "cost": None}
    return StagePlan(stage=name, dataset=name, version="0" * 32, state=state, **{**given, **fields})


def plan(*stages: StagePlan) -> Plan:
    return Plan(store="somewhere", constitution="0" * 64, stages=list(stages))


@pytest.fixture
def config(tmp_path: Path) -> AmendmentConfig:
    return AmendmentConfig(align=small_config(tmp_path))


@pytest.fixture
def store(config: AmendmentConfig, tmp_path: Path) -> Store:
    return Store.open(config.align.run.store, cache=tmp_path / "cache")


def amended(store: Store, *constitutions: Constitution) -> Published:
    return [publish(store, constitution, "anna: wiser") for constitution in constitutions][-1]


def test_form_text_says_what_is_to_do_and_why_and_leaves_out_what_is_fresh(store):
    cost = Cost(seconds=61.5, gpu_hours=0.0, num_tokens=100, basis="labels/1")
    text = form_text(
        plan(stage("prompts", "fresh", rows_to_make=0, spends=False), stage("label", cost=cost)),
        amended(store, OLD, NEW),
    )
    assert "move 2 by anna: wiser" in text and "1 of 2 stages to make, 4 rows to generate, about 62 s" in text
    assert "- tone-1: reworded (comparison)" in text
    assert "| stage | state | why | to make | seconds |" in text  # no column of GPU hours, which would say nothing
    assert "| label | stale | tone-1 reworded | 4 | 61.5 |" in text and "prompts" not in text


def test_form_text_keeps_markup_in_reasons_and_names_as_text(store):
    bad = stage("label", reasons=["<script>alert(1)</script> | x\ny"])
    text = form_text(plan(bad), publish(store, OLD, "<i>anna</i>"))
    assert "<" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; \\| x y |" in text


def test_amendment_text_shows_each_changed_text_word_by_word(store):
    text = amendment_text(amended(store, OLD, NEW))
    assert "**tone-1**, comparison question" in text and "{+&lt;b&gt;kinder&lt;/b&gt; \\| or+}" in text
    assert "- comparison: 25.0% of the draws touched" in text and "- revision: as it was" in text


def test_amendment_text_of_a_first_publication(store):
    assert amendment_text(amended(store, OLD)) == "its first publication, 4 principles"


def test_find_takes_the_constitution_of_the_config_where_none_is_named(store, config):
    named = OLD.model_copy(update={"id": "micro"})  # the id of the micro preset's constitution
    assert find(store, Change(), config) is None
    amended(store, NEW)
    assert find(store, Change(), config) is None
    move = amended(store, named).move
    assert find(store, Change(), config).move == move
    assert find(store, Change(constitution="small"), config).constitution.hash == NEW.hash


def test_find_a_move_that_is_not_there_names_move_and_store(store, config):
    with pytest.raises(ConfigError, match=r"change.sequence: 1, but it has none of constitution 'small' in .*store"):
        find(store, Change(constitution="small", sequence=1), config)
    amended(store, OLD)
    with pytest.raises(ConfigError, match=r"change.sequence: 2, but its newest is 1 .* published to another store"):
        find(store, Change(constitution="small", sequence=2), config)


def test_subject_is_another_for_each_move_version_and_config_and_the_same_for_each_event(store, config):
    first, second, third = (amended(store, c) for c in (OLD, NEW, OLD))
    seeded = config.align.model_copy(update={"run": config.align.run.model_copy(update={"seed": 1})})
    subjects = [subject_of(found, config.align) for found in (first, second, third)]
    assert len({subject.key for subject in [*subjects, subject_of(third, seeded)]}) == 4
    assert subjects[0].run == subjects[2].run != subjects[1].run
    assert subject_of(find(store, Change(constitution="small"), config), config.align) == subjects[2]


def test_follow_puts_the_published_version_in_the_place_of_the_file(store, config):
    from flows.given import constitution_of

    found = amended(store, NEW)
    assert constitution_of(follow(found, config.align)).hash == NEW.hash
    assert AlignConfig.model_validate(follow(found, config.align).model_dump(mode="json", exclude_none=True))


def test_preset_without_a_deployment_is_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match="start it in the UI"):
        preset()


def test_parameters_of_a_deployment_fit_the_form():
    import jsonschema
    from prefect.utilities.callables import parameter_schema

    from flows.config import load_config

    schema = parameter_schema(constitution_changed).model_dump_for_openapi()
    config = AmendmentConfig(align=load_config(["micro"], None, []))
    given = {"change": Change().model_dump(), "config": config.model_dump(mode="json", exclude_none=True)}
    jsonschema.validate(given, schema)
    for wrong in ({"change": {"sequence": -1}}, {"change": {"sequence": 0, "move": 1}}, {"config": {"policy": "ask"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**given, **wrong}, schema)
