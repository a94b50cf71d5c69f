"""Pictures in the UI: documents of their own, drawn from what stages and trainings log."""

import base64
import re
from xml.etree import ElementTree

import pytest

from flows.artifacts.pictures import CURVES_OF, LabelCounts, evaluations, pictures, standalone, training_pictures
from tasks.report.charts import line_chart
from tasks.schema import Label
from tests.test_report_training import HISTORY, PPO

SVG = "{http://www.w3.org/2000/svg}"
CALIBRATION = [
    {"confidence": 0.6, "accuracy": 0.55, "num_labels": 9},
    {"confidence": 0.8, "accuracy": 0.9, "num_labels": 5},
]
REWARD = {"train_entropy_floor": 0.31, "held_out_calibration": CALIBRATION, "held_out_ece": 0.05}


def images(blocks):
    """The pictures of an artifact, as XML."""
    encoded = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', "".join(blocks))
    return [ElementTree.fromstring(base64.b64decode(image)) for image in encoded]


def label(prob: float | None) -> Label:
    names = dict.fromkeys(
        ("row_id", "reuse_key", "prompt_id", "comparison_id", "evaluator", "slot", "principle_id"), "x"
    )
    values = {"principle_hash": "h", "order": "ab", "logprob_a": None, "logprob_b": None, "prob_a": prob}
    return Label.model_validate({**names, **values})


def test_picture_is_a_document_with_its_own_colours_and_ground():
    root = ElementTree.fromstring(standalone(line_chart("Loss", [(0, 2.0), (1, 1.0)], "step")))
    assert root.tag == f"{SVG}svg" and float(root.get("width", "0")) > 0 and float(root.get("height", "0")) > 0
    style, ground = root.find(f"{SVG}style"), root.find(f"{SVG}rect")
    assert style is not None and "prefers-color-scheme: dark" in str(style.text)
    assert ground is not None and ground.get("class") == "ground" and "svg .ground" in str(style.text)


def test_picture_of_labels_has_a_bar_for_each_bin_and_all_counts():
    counts = LabelCounts()
    counts.add([label(prob) for prob in (0.0, 0.01, 0.5, 0.51, 0.999, 1.0, None)])
    (root,) = images(pictures([counts.drawn()]))
    hints = [str(title.text) for bar in root.findall(f"{SVG}rect[@class='bar']") for title in bar]
    found = [int(hint.rsplit(": ", 1)[1]) for hint in hints]
    assert (len(found), found[0], found[10], found[19], sum(found)) == (20, 2, 2, 2, 6)


def test_picture_of_no_labels_is_none():
    counts = LabelCounts()
    counts.add([label(None)])
    assert not counts


def test_pictures_of_ppo_while_it_trains_are_those_at_its_end():
    """Its evaluations are in the log lines as in what it returns."""
    lines = [line | {"step": line["update"] + 1} for line in HISTORY]
    for line, measured in zip((lines[0], lines[4], lines[8]), PPO["evaluations"], strict=True):
        line |= {"step": measured["update"]} | {f"eval_{k}": v for k, v in measured.items() if k != "update"}
    assert evaluations(lines) == PPO["evaluations"]
    before, after = (
        training_pictures("ppo", {"history": lines, "final": final}) for final in ({}, PPO | {"best_update": None})
    )
    assert [drawn.chart for drawn in before] == [drawn.chart for drawn in after]
    assert len(images(pictures(before))) == 4


def test_pictures_of_ppo_show_the_score_that_trains_nothing():
    drawn = training_pictures("ppo", {"history": HISTORY, "final": PPO})[0]
    assert "by the second reward model" in drawn.caption and len(images(pictures([drawn]))) == 1


def test_pictures_of_a_reward_model_have_its_floor_and_its_calibration():
    history = [{"step": i, "loss": 1 / i} for i in range(1, 9)]
    loss, calibration = training_pictures("reward", {"history": history, "final": REWARD})
    assert "entropy of the labels" in str(loss.chart)
    assert calibration.title == "Reward model: calibration" and len(images(pictures([loss, calibration]))) == 2


@pytest.mark.parametrize("kind", CURVES_OF)
def test_pictures_of_a_training_that_logged_nothing_say_so(kind):
    drawn = training_pictures(kind, {"history": []})
    assert drawn and not images(pictures(drawn))
    assert all("Missing" in each.caption for each in drawn)


def test_pictures_with_a_figure_that_is_no_number_are_drawn_without_it():
    drawn = training_pictures("sft", {"history": [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}]})
    assert len(images(pictures(drawn))) == 1
