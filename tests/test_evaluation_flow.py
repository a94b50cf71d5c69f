"""Where each policy is served, and who judges."""

from flows.config import load_config
from flows.evaluation import serving_of


def test_reference_with_a_url_is_served_there_and_every_other_policy_as_all_are():
    far, near = "{name: far, model: org/far, url: 'http://127.0.0.1:9'}", "{name: near, model: org/near}"
    config = load_config(["micro"], None, [f"models.references=[{far}, {near}]"])
    assert serving_of(config, "far").serving.url == "http://127.0.0.1:9"
    assert serving_of(config, "far").serving.identity() == config.run.serving.identity()
    assert serving_of(config, "near") == serving_of(config, "rl") == config.run
