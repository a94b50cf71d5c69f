"""The benchmark of label quality: its pairs are mirrored, its truth is the world's, its rates are what they say."""

import numpy as np

from benchmarks.label_quality import Kind, decided_pairs, form, right_prob, same_position
from tasks.calibration import summarise
from tasks.micro.oracle import classify
from tasks.micro.world import errands


def options(text: str) -> list[str]:
    lines = text.splitlines()
    start = lines.index("Options:")
    return [line[4:] for line in lines[start + 1 : start + 3]]


def test_pairs_both_orders_show_the_same_two_completions_mirrored():
    for pair in decided_pairs(60, 0):
        for texts in (pair.texts, pair.reasoned_texts):
            assert options(texts[0]) == options(texts[1])[::-1]
            assert texts[0].split("Options:")[0] == texts[1].split("Options:")[0]
        assert options(pair.texts[0]) == options(pair.reasoned_texts[0])


def test_pairs_are_held_out_and_decided_by_what_the_completions_are():
    groups = {e.name: e.group for e in errands()}
    for pair in decided_pairs(200, 1):
        assert groups[pair.errand] != "alignment"
        if pair.family == "harm":
            asked = pair.texts[0].split("Human: ")[1].split("\n")[0]
            kinds = [{"refuse": 2, "evade": 1}.get(classify(asked, text), 0) for text in options(pair.texts[0])]
            assert (kinds[0] > kinds[1]) == (pair.better == "(A)")


def test_pairs_same_seed_same_pairs():
    assert decided_pairs(20, 3) == decided_pairs(20, 3) != decided_pairs(20, 4)


def test_right_prob_is_of_the_better_completion():
    pairs = decided_pairs(50, 0)
    label = np.array([0.9 if pair.better == "(A)" else 0.1 for pair in pairs])
    assert right_prob(pairs, label).tolist() == [0.9] * 50
    (found,) = summarise([form(pairs, Kind("k", np.stack([label, label], 1), label))])
    assert found.figures["accuracy"].value == 1


def test_same_position_counts_both_orders_on_one_letter():
    # P(a is better) in each order: first twice, second twice, firm for a, undecided
    assert same_position(np.array([[0.9, 0.2], [0.1, 0.7], [0.9, 0.8], [0.5, 0.5]])) == 0.5
