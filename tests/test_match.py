"""Policies against each other: what is asked, how often, and what comes of judges and policies that are known."""

from itertools import combinations, islice, pairwise

import pytest

from tasks.evaluate import rate_all
from tasks.evaluation.bouts import MatchConfig, Meeting, draw_prompts
from tasks.match import MatchStage, judge_by_oracle, match
from tasks.schema import Match, Sample
from tasks.serving import Choice, FakeGenerator
from tasks.stage import RunContext
from tests.worlds import FAKE_MODEL, commit, open_store, prompt, recipe, session_on

CONFIG = MatchConfig()
POLICIES = [f"p{i}" for i in range(7)]


def sample(asked, text, **fields):
    values = {"row_id": f"{asked.prompt_id}/0", "reuse_key": f"{asked.prompt_id}{text}", "prompt_id": asked.prompt_id}
    return Sample.model_validate(
        {**values, "kind": asked.kind, "group": None, "sample": 0, "completion": text, **fields}
    )


def meeting(name, said, kind="red_team"):
    asked = prompt(name, kind=kind, split="held_out")
    return Meeting(asked, {policy: sample(asked, text) for policy, text in said.items()})


def every_text_differs(num_prompts, policies=POLICIES):
    kinds = ["red_team", "helpful"]
    return [meeting(f"ask {i}", {p: f"{p} on {i}" for p in policies}, kinds[i % 2]) for i in range(num_prompts)]


def shown(request):
    """The two completions in the order in which they were shown."""
    text = request.messages[0].content
    first, _, rest = text.partition("\n(A) ")[2].partition("\n(B) ")
    return first, rest.partition("\n\nThe answer is")[0]


def preferring(better):
    """A judge that is sure of the text that `better` ranks higher, wherever it stands."""

    def weigh(request):
        a, b = map(better, shown(request))
        return (-0.01, -5.0) if a > b else (-5.0, -0.01) if a < b else (-0.7, -0.7)

    return FakeGenerator(weigh=weigh)


def meet(meetings, generator, **config):
    return match(meetings, generator, "judge", CONFIG.model_copy(update=config), recipe(sampling=None))


def test_match_of_7_policies_on_500_prompts_asks_twice_for_each_pair_and_no_more():
    generator = FakeGenerator()
    rows = meet(every_text_differs(500), generator)
    assert len(rows) == 500 * 21
    assert len(generator.choices) == 2 * 500 * 21
    assert len({request.messages[0].content for request in generator.choices}) == len(generator.choices)


def test_match_same_texts_are_asked_once_whoever_said_them():
    said = {"p0": "yes", "p1": "no", "p2": "yes", "p3": "no", "p4": "perhaps"}
    generator = preferring(lambda text: text == "no")
    rows = meet([meeting("ask", said)], generator)
    assert len(generator.choices) == 2 * 3  # yes, no and perhaps: three pairs
    for row in rows:
        texts = said[row.policy_a], said[row.policy_b]
        expected = 0.5 if texts[0] == texts[1] or "no" not in texts else float(texts[0] == "no")
        assert row.prob_a == pytest.approx(expected, abs=0.01), row


def test_match_texts_that_begin_alike_are_asked_one_after_another():
    generator = FakeGenerator()
    meet(every_text_differs(4), generator)
    firsts = [request.messages[0].content.partition("\n(B) ")[0] for request in generator.choices]
    changes = sum(a != b for a, b in pairwise(firsts))
    assert changes == len(set(firsts)) - 1


def test_match_judge_that_always_says_a_moves_nobody():
    rows = meet(every_text_differs(20), FakeGenerator(weigh=lambda request: (-0.01, -5.0)))
    assert all(row.prob_ab > 0.99 and row.prob_ba < 0.01 and row.prob_a == pytest.approx(0.5) for row in rows)
    ratings = list(rate_all({"judge": rows}, POLICIES, {}))
    assert len(ratings) == 14 and all(abs(m.value) < 1e-6 and m.high - m.low < 1e-6 for m in ratings)


def test_match_better_policy_is_rated_higher_on_its_kind_of_prompt_alone():
    policies = ["base", "harmless", "helpful"]
    rows = meet(every_text_differs(60, policies), preferring(lambda text: text.split(" on ")[0] == "harmless"))
    red_team = [row for row in rows if row.kind == "red_team"]
    found = {(m.policy, m.measure): m for m in rate_all({"judge": red_team}, policies, {})}
    assert found["harmless", "harmlessness_elo"].low > 0
    assert abs(found["helpful", "harmlessness_elo"].value) < 1
    assert ("harmless", "helpfulness_elo") not in found


def test_match_asks_about_harm_on_red_team_prompts_and_about_help_on_the_others():
    generator = FakeGenerator()
    meet(every_text_differs(2), generator, harmlessness_question="HARM?", helpfulness_question="HELP?")
    for request in generator.choices:
        text = request.messages[0].content
        assert ("HARM?" in text) == (" 0\n" in text.partition("Options")[0] or "ask 0" in text)
        assert ("HELP?" in text) != ("HARM?" in text)


def test_match_sample_that_is_not_ok_meets_nobody_and_says_why():
    made = meeting("ask", {"p0": "a", "p1": "b", "p2": "c"})
    asked = made.prompt
    broken = {**made.samples, "p1": sample(asked, None, status="failed", reason="too long")}
    generator = FakeGenerator()
    rows = meet([Meeting(asked, broken)], generator)
    assert len(generator.choices) == 2
    assert [row.status for row in rows] == ["skipped", "ok", "skipped"]
    assert "too long" in rows[0].reason and rows[0].prob_a is None


@pytest.mark.parametrize("weak", [0, 1])
def test_match_judge_without_an_answer_in_either_order_is_a_failure(weak):
    answers = [Choice((-0.1, -3.0)), Choice((-0.1, -3.0))]
    answers[weak] = Choice((-30.0, -31.0))
    replies = iter(answers)
    (row,) = meet([meeting("ask", {"p0": "a", "p1": "b"})], FakeGenerator(weigh=lambda request: next(replies)))
    assert row.status == "failed" and "of the probability" in row.reason and row.prob_a is None


def test_match_prompts_are_drawn_of_each_kind_alike_wherever_they_stand():
    asked = [m.prompt for m in every_text_differs(200)]
    drawn = draw_prompts(asked, 20)
    kinds = [prompt.kind for prompt in asked if prompt.prompt_id in drawn]
    assert (kinds.count("red_team"), kinds.count("helpful")) == (20, 20)
    assert draw_prompts(reversed(asked), 20) == drawn and draw_prompts(asked, 10) < drawn
    assert draw_prompts(asked, 1000) == {prompt.prompt_id for prompt in asked} and draw_prompts(asked, None) is None


def test_match_oracle_knows_refusals_from_evasions_and_right_tools_from_wrong_ones():
    from tasks.micro.world import ASKS, errands, respond

    def standing(harmful, kinds):
        import random

        errand = next(e for e in errands() if e.harmful == harmful)
        asked = prompt(ASKS[0].format(errand=errand.name), kind="red_team" if harmful else "helpful", split="held_out")
        said = {kind: respond(errand, kind, "curt", random.Random(0)).text(errand) for kind in kinds}
        rows = judge_by_oracle([Meeting(asked, {k: sample(asked, text) for k, text in said.items()})], "micro_oracle")
        return {(r.policy_a, r.policy_b): r.prob_a for r in rows}

    def beats(found, better, worse):
        return found.get((better, worse), 1 - found.get((worse, better), 1)) == 1

    harm = standing(True, ["comply", "wrong", "evade", "refuse"])
    assert beats(harm, "refuse", "evade") and beats(harm, "evade", "comply") and beats(harm, "evade", "wrong")
    assert 0.5 in (harm.get(("comply", "wrong")), harm.get(("wrong", "comply")))
    helped = standing(False, ["comply", "wrong", "evade", "refuse"])
    assert beats(helped, "comply", "wrong") and beats(helped, "wrong", "refuse")
    assert 0.5 in (helped.get(("refuse", "evade")), helped.get(("evade", "refuse")))


class World:
    """Prompts and samples of seven policies in a store."""

    def __init__(self, folder, num_prompts):
        self.store = open_store(folder)
        self.meetings = every_text_differs(num_prompts)
        self.prompts = commit(self.store, "prompts", [m.prompt for m in self.meetings], type(self.meetings[0].prompt))
        self.samples = {
            policy: commit(self.store, "samples", [m.samples[policy] for m in self.meetings], Sample)
            for policy in POLICIES
        }

    def stage(self, policies, **config):
        samples = {policy: self.samples[policy] for policy in policies}
        return MatchStage(
            run=RunContext(chunk_rows=8),
            prompts=self.prompts,
            samples=samples,
            judge="judge",
            model=FAKE_MODEL,
            config=MatchConfig(**config),
        )

    def make(self, stage, generator):
        return list(self.store.read(stage.make(session_on(self.store, generator))).to_pylist())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, 30)


def test_match_one_more_policy_is_judged_against_the_others_and_nobody_else_again(world):
    judge = preferring(hash)
    world.make(world.stage(POLICIES[:6]), judge)
    assert len(judge.choices) == 2 * 30 * 15
    more = preferring(hash)
    rows = world.make(world.stage(POLICIES), more)
    assert len(rows) == 30 * 21 and len(more.choices) == 2 * 30 * 6
    assert all("p6 on" in request.messages[0].content for request in more.choices)


def test_match_of_other_policies_before_is_as_if_they_had_not_been_there(world, tmp_path):
    at_once = world.make(world.stage(POLICIES), preferring(len))
    other = World(tmp_path / "other", 30)
    for policies in (POLICIES[3:], ["p6", "p1"]):
        other.make(other.stage(policies), preferring(len))
    columns = [f for f in Match.model_fields if f != "row_hash"]
    later = other.make(other.stage(POLICIES), preferring(len))
    assert [{c: row[c] for c in columns} for row in later] == [{c: row[c] for c in columns} for row in at_once]


def test_match_forecast_counts_the_rows_that_are_made(world):
    for config in ({}, {"num_prompts": 4}, {"num_prompts": 1000}):
        stage = world.stage(POLICIES, **config)
        assert stage.num_rows(world.store) == len(world.make(stage, FakeGenerator()))


def test_match_rows_are_the_same_however_the_work_is_cut(world):
    def rows(size):
        stage = world.stage(POLICIES)
        generator = preferring(len)
        items, core = stage.items(world.store), stage.core(world.store)
        found = []
        while part := list(islice(items, size)):
            found += core(part, generator, lambda keys: {})
        return found

    assert rows(1) == rows(7) == rows(1000)
    assert len(rows(5)) == 30 * len(list(combinations(POLICIES, 2)))
