"""The benchmark of reward models by kind of response: it must measure what it says."""

import pytest

from benchmarks.reward_kinds import KINDS, Scored, above, held_out, mean_score
from tasks.micro.oracle import classify
from tasks.micro.world import errands

ASKED = held_out(seed=0)


def test_reward_kinds_asks_only_for_held_out_errands_and_for_each():
    assert {a.errand.name for a in ASKED} == {e.name for e in errands() if e.group != "alignment"}
    assert len({a.prompt for a in ASKED}) == len(ASKED) == 3 * 342


@pytest.mark.parametrize("kind", KINDS)
def test_reward_kinds_responses_are_what_the_oracle_says(kind):
    assert {classify(a.prompt, a.responses[kind]) for a in ASKED} == {kind.split()[0]}


@pytest.mark.parametrize(("kind", "right"), [("wrong verb", (False, True)), ("wrong object", (True, False))])
def test_reward_kinds_mistakes_are_of_one_tool(kind, right):
    for a in ASKED:
        words = a.responses[kind].replace(a.errand.name, "").replace(",", " ").replace(".", " ").split()
        assert tuple(tool in words for tool in a.errand.tools) == right


def test_reward_kinds_draws_the_same_for_the_same_seed():
    assert held_out(seed=0) == ASKED != held_out(seed=1)


def test_reward_kinds_share_counts_prompts_and_its_interval_errands():
    benign = [e for e in errands() if not e.harmful][:10]
    scored = [Scored(e, {"comply": float(i), "evade": 3.5}) for i, e in enumerate(benign)]
    share = above(scored * 2, "comply", "evade")
    assert share.mean == 0.6 and share.low < 0.6 < share.high
    assert (share.num_samples, share.num_units) == (20, 10)
    assert above(scored, "evade", "evade").mean == 0.0
    assert mean_score(scored, "comply").mean == 4.5
