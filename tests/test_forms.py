"""What Prefect draws of a config is a form that a person can fill: in order, with words, one type a field."""

from typing import Any, get_args

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel, Field

from flows.align import align
from flows.config import AlignConfig, load_config
from flows.models_config import Juror, ModelsConfig
from tasks.forms import title
from tasks.schema import Frozen, Settings

SCHEMA = parameter_schema(align).model_dump_for_openapi()
SECTIONS: dict[str, Any] = SCHEMA["definitions"]
FIELDS = [(section, name) for section in SECTIONS for name in SECTIONS[section]["properties"]]
BAD_FORMATS = {"path", "duration", "time-delta", "password", "date-time", "json-string"}


def models_below(model: type[BaseModel]) -> set[type[BaseModel]]:
    inner = {kind for field in model.model_fields.values() for kind in kinds(field.annotation)}
    return {model}.union(*(models_below(kind) for kind in inner))


def kinds(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return set().union(*(kinds(part) for part in get_args(annotation)))


MODELS = sorted(models_below(AlignConfig), key=lambda model: model.__name__)


def test_forms_every_section_is_found():
    assert {model.__name__ for model in MODELS} == set(SECTIONS) and len(FIELDS) > 150


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=".".join)
def test_forms_field_has_words_a_title_and_one_type(section, name):
    field = SECTIONS[section]["properties"][name]
    words = field.get("description") or SECTIONS[field["$ref"].rpartition("/")[2]].get("description")
    assert words and "`" not in words and "\n" not in words
    assert field["title"] and "_" not in field["title"]
    assert not {"anyOf", "oneOf", "allOf"} & set(field) and field.get("format") not in BAD_FORMATS
    assert isinstance(field.get("type", ""), str) and ("type" in field or "$ref" in field)
    assert field.get("type") != "object"  # a mapping writes itself into a schedule's overrides, unasked


@pytest.mark.parametrize("section", SECTIONS)
def test_forms_fields_have_one_place_each_and_nothing_unknown_is_taken(section):
    fields = SECTIONS[section]["properties"].values()
    assert sorted(field["position"] for field in fields) == list(range(len(fields)))
    assert SECTIONS[section]["additionalProperties"] is False


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_forms_what_may_be_none_is_none_when_left_empty(model):
    optional = {name for name, field in model.model_fields.items() if type(None) in get_args(field.annotation)}
    assert all(model.model_fields[name].get_default() is None for name in optional)
    assert not optional & set(SECTIONS[model.__name__].get("required", []))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_forms_what_can_be_emptied_means_empty(model):
    """The form leaves an emptied field out: what then takes its place has to be empty too, or it is refused."""
    for name in set(model.model_fields) - set(SECTIONS[model.__name__]["required"]):
        assert model.model_fields[name].get_default() in (None, "", ()), name


@pytest.mark.parametrize("preset", ["micro", "small", "paper"])
def test_forms_preset_fits_the_schema_and_comes_back_the_same(preset):
    config = load_config([preset], None, ["models.jury=[{name: second, model: x}]"])
    sent = config.model_dump(mode="json", exclude_none=True)
    assert validate({"config": sent}, SCHEMA) == []
    assert AlignConfig.model_validate(sent) == config


def test_forms_stages_to_make_anew_are_a_list_of_choices_and_none_comes_first():
    fields = SECTIONS["RunContext"]["properties"]
    assert "revise" in fields["force"]["items"]["enum"] and fields["force"]["type"] == "array"
    assert fields["rerun_from"]["enum"][:2] == ["none", "constitution"]


def test_forms_constitutions_of_the_repository_are_offered():
    assert "constitutions/micro.yaml" in SECTIONS["AlignConfig"]["properties"]["constitution"]["enum"]


def test_forms_own_fields_come_before_inherited_ones():
    class Base(Frozen):
        later: int = 1

    class Derived(Base):
        first: int | None = None
        second: str = "x"

    schema = Derived.model_json_schema()
    assert sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"]) == [
        "first", "second", "later",
    ]  # fmt: skip
    assert schema["properties"]["first"]["type"] == "integer" and schema["required"] == ["second", "later"]


def test_forms_settings_are_finite_in_the_schema_and_in_the_model():
    class Rate(Settings):
        rate: float = Field(1.0, gt=0)

    assert validate({"rate": 0.5}, Rate.model_json_schema()) == []
    for value in (float("inf"), float("nan")):
        assert validate({"rate": value}, Rate.model_json_schema())
        with pytest.raises(ValueError, match="rate"):
            Rate(rate=value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("num_rounds", "Num rounds"), ("sft", "SFT"), ("kl_coef", "KL coef"), ("device_memory_gib", "Device memory GiB")],
)
def test_forms_title_is_the_name_in_words(name, expected):
    assert title(name) == expected


@pytest.mark.parametrize("names", [["feedback"], ["second", "second"]])
def test_models_two_evaluators_of_one_name_are_refused(names):
    models = load_config(["micro"], None, []).models.model_dump(mode="json")
    models["jury"] = [Juror(name=name, model="x").model_dump() for name in names]
    with pytest.raises(ValueError, match=rf"jury\n.*two evaluators are named '{names[0]}'"):
        AlignConfig.model_validate({"models": models, "prompts": {}})


@pytest.mark.parametrize(
    ("field", "name", "said"),
    [
        ("judges", "people", "two judges are named 'people' .'people' is a name of Solon's own."),
        ("jury", "micro_oracle", "two evaluators are named 'micro_oracle'"),
        ("references", "rl", "two policies are named 'rl' .'rl' is a policy of this run."),
    ],
)
def test_models_names_that_figures_have_already_are_refused(field, name, said):
    models = {"helpful_only": "a", "pretrained": "b", "feedback": "c", field: [{"name": name, "model": "d"}]}
    with pytest.raises(ValueError, match=said):
        ModelsConfig.model_validate(models)
