"""Which server may take another model's weights, and what happens to the generators that have to go."""

import json
import shutil

import pytest

from tasks.serving import FakeGenerator, ServingConfig
from tasks.serving.kept import KeptGenerators
from tasks.serving.server import VLLMServer
from tasks.serving.swap import differ_in_weights_alone, dtype_served, swapped
from tests.tiny_model import make_tiny_model


class Loaded(FakeGenerator):
    def __init__(self, name, living=True):
        super().__init__()
        self.name, self.living, self.stopped = name, living, False

    def alive(self):
        return self.living and not self.stopped

    def stop(self):
        self.stopped = True


@pytest.fixture
def kept():
    return KeptGenerators()


def use(kept, name, limit=1, adopt=lambda leaving: None):
    with kept.use(name, limit, lambda: Loaded(name), adopt) as generator:
        return generator


def test_generator_that_must_leave_is_adopted_instead_of_stopped(kept):
    first = use(kept, "first")
    shown = []
    second = use(kept, "second", adopt=lambda leaving: shown.append(leaving) or Loaded("adopted"))
    assert (shown, second.name, first.stopped) == ([first], "adopted", False)
    assert use(kept, "second") is second
    assert use(kept, "first").name == "first" and second.stopped


def test_generator_that_is_not_adopted_is_stopped_before_another_is_loaded(kept):
    first = use(kept, "first")
    with kept.use("second", 1, lambda: Loaded(f"after stop: {first.stopped}"), lambda leaving: None) as second:
        assert second.name == "after stop: True"


def test_generator_in_use_or_within_the_limit_is_not_shown(kept):
    with kept.use("busy", 1, lambda: Loaded("busy"), lambda leaving: None) as busy:
        assert use(kept, "second", adopt=pytest.fail).name == "second"
        assert not busy.stopped
    assert use(kept, "third", limit=3, adopt=pytest.fail).name == "third"


def test_dead_generator_is_not_adopted(kept):
    use(kept, "first").living = False
    assert use(kept, "second", adopt=pytest.fail).name == "second"


def test_adoption_that_raises_stops_what_it_was_given(kept):
    def interrupted(leaving):
        raise KeyboardInterrupt

    first = use(kept, "first")
    with pytest.raises(KeyboardInterrupt):
        use(kept, "second", adopt=interrupted)
    assert first.stopped
    assert use(kept, "first") is not first


def test_no_more_than_the_limit_stay_after_an_adoption(kept):
    generators = [use(kept, str(i), limit=3) for i in range(3)]
    use(kept, "new", limit=1, adopt=lambda leaving: Loaded("adopted"))
    assert [each.stopped for each in generators] == [False, True, True]  # the first was adopted


@pytest.fixture
def folders(tmp_path):
    make_tiny_model(tmp_path / "ours")
    shutil.copytree(tmp_path / "ours", tmp_path / "theirs")
    return tmp_path / "ours", tmp_path / "theirs"


def server_of(folder, **config):
    return VLLMServer(None, "http://127.0.0.1:1", "name", folder, ServingConfig(**config))


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_that_differ_in_weights_alone(folders):
    ours, theirs = folders
    edit(theirs, _name_or_path="elsewhere", transformers_version="0")
    assert differ_in_weights_alone(server_of(ours), theirs)


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 9}, {"rms_norm_eps": 0.1}, {"quantization_config": {"quant_method": "fp8"}}],
)
def test_models_of_another_shape_do_not(folders, changes):
    ours, theirs = folders
    edit(theirs, **changes)
    assert not differ_in_weights_alone(server_of(ours), theirs)


def test_models_that_vllm_cannot_reload_do_not(folders):
    ours, theirs = folders
    assert not differ_in_weights_alone(server_of(ours, extra_arguments=("--quantization=fp8",)), theirs)
    for folder in folders:
        edit(folder, tie_word_embeddings=True)
    assert not differ_in_weights_alone(server_of(ours), theirs)
    for folder in folders:
        edit(folder, tie_word_embeddings=False, quantization_config={"quant_method": "fp8"})
    assert not differ_in_weights_alone(server_of(ours), theirs)


def test_models_with_another_tokenizer_do_not(folders):
    ours, theirs = folders
    (theirs / "tokenizer.json").write_bytes((theirs / "tokenizer.json").read_bytes() + b"\n")
    assert not differ_in_weights_alone(server_of(ours), theirs)


def test_generator_without_a_server_of_ours_is_not_swapped(folders):
    assert swapped(Loaded("fake"), None, folders[0], ServingConfig(reload_weights=True)) is None


def test_served_format_is_the_configs_or_the_models(folders, monkeypatch):
    monkeypatch.setattr("tasks.serving.swap.vllm_python", lambda: None)
    edit(folders[0], dtype="float16")
    for on_cpu, expected in ((True, "float32"), (False, "float16")):
        monkeypatch.setattr("tasks.serving.swap.is_cpu_build", lambda python, answer=on_cpu: answer)
        assert dtype_served(folders[0], ServingConfig()) == expected
        assert dtype_served(folders[0], ServingConfig(dtype="bfloat16")) == "bfloat16"
