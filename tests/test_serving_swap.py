"""Which server may take another model's weights, and what happens to the generators that have to go."""

import json
import shutil

import pytest
import torch

from tasks.serving import FakeGenerator, ServingConfig
from tasks.serving.kept import KeptGenerators
from tasks.serving.rendering import Renderer
from tasks.serving.server import VLLMServer
from tasks.serving.swap import dtype_served, obstacle, swapped
from tasks.serving.transformers_engine import TransformersGenerator
from tasks.serving.vllm_engine import over
from tasks.training.folders import load_policy, save_model
from tests.test_serving_probe import MODEL, Server
from tests.tiny_model import make_tiny_model


class NeverEnding:
    """The process of a server that lives."""

    def poll(self):
        return None


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


def test_models_that_differ_in_weights_alone_have_no_obstacle(folders):
    ours, theirs = folders
    edit(theirs, _name_or_path="elsewhere", transformers_version="0", use_cache=False)
    assert obstacle(server_of(ours), theirs) is None


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 9}, {"rms_norm_eps": 0.1}, {"quantization_config": {}}])
def test_obstacle_of_another_shape_is_named(folders, changes):
    ours, theirs = folders
    edit(theirs, **changes)
    assert f"another {next(iter(changes))} than" in obstacle(server_of(ours), theirs)


def test_obstacle_is_what_vllm_cannot_reload(folders):
    ours, theirs = folders
    assert "quantised" in obstacle(server_of(ours, extra_arguments=("--quantization=fp8",)), theirs)
    for folder in folders:
        edit(folder, tie_word_embeddings=True)
    assert "tied" in obstacle(server_of(ours), theirs)
    for folder in folders:
        edit(folder, tie_word_embeddings=False, quantization_config={"quant_method": "fp8"})
    assert "quantised" in obstacle(server_of(ours), theirs)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "tokenizer.model", "generation_config.json"])
def test_obstacle_is_another_file_that_a_server_reads_once(folders, name):
    ours, theirs = folders
    (theirs / name).write_text("{}")
    assert f"another {name} than" in obstacle(server_of(ours), theirs)


def test_generator_without_a_server_of_ours_is_not_swapped(folders):
    assert swapped(Loaded("fake"), None, folders[0], ServingConfig(reload_weights=True)) is None


def test_differences_are_judged_as_float32_only_where_that_is_known(monkeypatch):
    monkeypatch.setattr("tasks.serving.swap.vllm_python", lambda: None)
    for on_cpu, expected in ((True, "float32"), (False, "auto")):
        monkeypatch.setattr("tasks.serving.swap.is_cpu_build", lambda python, answer=on_cpu: answer)
        assert dtype_served(ServingConfig()) == expected
        assert dtype_served(ServingConfig(dtype="bfloat16")) == "bfloat16"


@pytest.mark.parametrize("takes_them", [True, False])
def test_weights_that_differ_by_less_than_bfloat16_rounds_must_have_been_taken(
    folders, tmp_path, monkeypatch, caplog, takes_them
):
    """The tolerance of bfloat16 would let the old ones pass."""
    ours, theirs = folders
    policy = load_policy(ours)
    with torch.no_grad():
        policy.get_output_embeddings().weight.mul_(1.01)
    save_model(policy, ours, theirs, "float32")
    (theirs / "config.json").write_bytes((ours / "config.json").read_bytes())
    config = ServingConfig(dtype="bfloat16", reload_weights=True, scratch=tmp_path)
    running = Server(ours)

    def reload(server, folder):
        if takes_them:
            running.engine = TransformersGenerator.load(folder, ServingConfig(engine="transformers"))

    monkeypatch.setattr("tasks.serving.swap.reload_weights", reload)
    server = VLLMServer(NeverEnding(), running.url, "name", ours, config)
    found = swapped(over(server, Renderer.load(ours, config), config), MODEL, theirs, config)
    running.http.shutdown()
    running.http.server_close()
    assert (found is not None) == takes_them
    assert ("before the reload and by" in caplog.text) == (not takes_them)
