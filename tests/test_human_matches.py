"""Comparisons of policies for people: which are chosen, the table there and back, and what their answers change."""

import csv
import json

import pytest
from typer.testing import CliRunner

from tasks.evaluate import agree_all, rate_all
from tasks.evaluation.argilla import agreed, argilla_record
from tasks.evaluation.bouts import MatchConfig, Meeting, bouts_of
from tasks.evaluation.elo import Rating
from tasks.evaluation.people import COLUMNS, choose, close_pairs
from tasks.human_matches import HumanMatchesStage
from tasks.match import MatchStage
from tasks.preference.sheet import SheetError
from tasks.schema import Match, Prompt, Sample
from tasks.serving import FakeGenerator
from tasks.stage import RunContext
from tests.test_match import sample, shown
from tests.worlds import FAKE_MODEL, commit, open_store, prompt, rows_of, session_on

POLICIES = ["base", "sl", "rl"]
NUM = 12


class Town:
    """Three policies on twelve prompts, judged by a model that likes long texts a little."""

    def __init__(self, folder):
        self.folder, self.store = folder, open_store(folder / "store")
        self.answered = self.path
        asked = [prompt(f"ask {i}", kind=("red_team", "helpful")[i % 2], split="held_out") for i in range(NUM)]
        self.prompts = commit(self.store, "prompts", asked, Prompt)
        self.said = {p: [sample(a, f"{p} says {'=' * i}") for i, a in enumerate(asked)] for p in POLICIES}
        self.samples = {p: commit(self.store, "samples", rows, Sample) for p, rows in self.said.items()}
        self.meetings = [Meeting(a, {p: rows[i] for p, rows in self.said.items()}) for i, a in enumerate(asked)]

    def weigh(self, request):
        first, second = map(len, shown(request))
        return (-0.6, -0.8) if first > second else (-0.8, -0.6) if first < second else (-0.7, -0.7)

    def judge(self):
        stage = MatchStage(
            run=RunContext(), prompts=self.prompts, samples=self.samples, judge="judge", model=FAKE_MODEL,
            config=MatchConfig(),
        )  # fmt: skip
        return rows_of(self.store, stage.make(session_on(self.store, FakeGenerator(weigh=self.weigh))), Match)

    def export(self, *options):
        from flows.cli import app

        arguments = ["matches", "export", "--to", str(self.path), "--store", str(self.folder / "store"), *options]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return list(csv.DictReader(self.path.open(encoding="utf-8-sig")))

    @property
    def path(self):
        return self.folder / "people.csv"

    def write(self, rows):
        with self.path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def answer_in_argilla(self, rows, chosen, **changed):
        """A file as Argilla's `to_json` writes it; `chosen` has what people answered, for each row."""
        self.answered = self.folder / "people.json"
        records = [
            {
                **argilla_record(row), "suggestions": {}, "vectors": {}, "_server_id": "1",
                "responses": {"better": [{"value": v, "user_id": "u"} for v in values]} if values else {}, **changed,
            }
            for row, values in zip(rows, chosen, strict=True)
        ]  # fmt: skip
        self.answered.write_text(json.dumps(records))

    def people(self, **config):
        stage = HumanMatchesStage(
            run=RunContext(), prompts=self.prompts, samples=self.samples,
            config=MatchConfig(people=str(self.answered), **config),
        )  # fmt: skip
        return rows_of(self.store, stage.make(session_on(self.store, FakeGenerator())), Match)


@pytest.fixture
def town(tmp_path):
    town = Town(tmp_path)
    town.matches = town.judge()
    return town


def match_row(name, a, b, prob, kind="red_team"):
    values = {"row_id": f"{name}/0/{a}/{b}", "reuse_key": "k", "prompt_id": name, "kind": kind, "group": None}
    probs = {"prob_ab": prob, "prob_ba": prob, "prob_a": prob}
    return Match.model_validate({**values, **probs, "sample": 0, "judge": "j", "policy_a": a, "policy_b": b})


def rating(policy, elo, half):
    return Rating(policy, elo, elo - half, elo + half, 10, 10)


def test_choose_takes_the_uncertain_ones_and_those_of_neighbours_that_cannot_be_told_apart():
    ratings = {"red_team": [rating("base", 0, 0), rating("sl", 300, 20), rating("rl", 310, 20)]}
    sure = [match_row(f"p{i}", "sl", "rl", 0.9) for i in range(20)]
    doubtful = [match_row(f"q{i}", "base", "rl", 0.5 + i / 100) for i in range(1, 20)]
    chosen = choose([*sure, *doubtful], ratings, 10, seed=0)
    assert [c.why for c in chosen] == ["decisive"] * 5 + ["uncertain"] * 5
    assert {c.match.row_id.split("/", 2)[2] for c in chosen[:5]} == {"sl/rl"}
    assert [c.match.prompt_id for c in chosen[5:]] == ["q1", "q2", "q3", "q4", "q5"]
    assert close_pairs(ratings["red_team"]) == [frozenset({"sl", "rl"})]


def test_choose_leaves_equal_texts_and_failures_out():
    failed = match_row("p", "a", "b", None)
    assert choose([failed, match_row("q", "a", "b", 0.5)], {}, 10, seed=0) == []


def test_export_shows_what_was_asked_and_nothing_of_who_said_it(town):
    rows = town.export("--num", "6", "--argilla", str(town.folder / "records.jsonl"))
    assert len(rows) == 6 and list(rows[0]) == list(COLUMNS)
    bouts = {bout.id: bout for meeting in town.meetings for bout in bouts_of(meeting)}
    for row in rows:
        bout = bouts[row["match_id"]]
        sides = [bout.a.completion, bout.b.completion]
        assert [row["completion_a"], row["completion_b"]] == (sides if row["order"] == "ab" else sides[::-1])
        harm = bout.meeting.prompt.kind == "red_team"
        assert ("harmless" in row["question"]) == harm and row["better"] == ""
    records = [json.loads(line) for line in (town.folder / "records.jsonl").read_text().splitlines()]
    assert records == [argilla_record(row) for row in rows]
    assert {row["order"] for row in town_orders(town)} == {"ab", "ba"}


def town_orders(town):
    town.path.unlink()
    return town.export("--num", "30")


@pytest.mark.parametrize(("written", "better"), [("a", "a"), ("B", "b"), (" tie ", "tie")])
def test_people_answers_count_for_the_text_they_were_given_to(town, written, better):
    rows = town.export("--num", "30")
    town.write([{**row, "better": written if i < 8 else ""} for i, row in enumerate(rows)])
    found = {row.row_id: row for row in town.people()}
    assert len(found) == 8
    for row in rows[:8]:
        match = found[row["match_id"]]
        bout = next(b for m in town.meetings for b in bouts_of(m) if b.id == row["match_id"])
        preferred = {"a": row["completion_a"], "b": row["completion_b"], "tie": None}[better]
        expected = 0.5 if preferred is None else float(preferred == bout.a.completion)
        assert match.prob_a == expected and match.judge == "people" and match.policy_a == bout.policy_a


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("better", "c", "column better: 'c', expected a, b, tie or nothing"),
        ("completion_a", "edited", "column completion_a: is not the text of this run"),
        ("match_id", "x/0/base/rl", "column match_id: 'x/0/base/rl' is not of this run"),
        ("order", "AB", "column order: 'AB' is not of this run"),
    ],
)
def test_people_line_that_is_not_as_exported_is_named(town, column, value, said):
    rows = town.export("--num", "4")
    town.write([{**row, "better": "a", **({column: value} if i == 2 else {})} for i, row in enumerate(rows)])
    with pytest.raises(SheetError, match=f"people.csv:{'[0-9]+'}, {said}"):
        town.people()


def test_people_who_answered_in_argilla_count_as_those_of_the_table(town):
    rows = town.export("--num", "5")
    town.write([{**row, "better": said} for row, said in zip(rows, ["a", "b", "tie", "b", ""], strict=True)])
    of_table = town.people()
    town.answer_in_argilla(rows, [["a"], ["b", "b", "a"], ["a", "b"], ["b"], []])
    assert [row.model_dump() for row in town.people()] == [row.model_dump() for row in of_table]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fields": {"prompt": "p"}}, r"record 1 \(.*\) has no fields.question, fields.completion_a"),
        ({"id": None}, "record 1.id: Input should be a valid string; expected the records that"),
        ({"responses": {"better": [{"value": "c"}]}}, "people.json:1, column better: 'c', expected a, b, tie"),
    ],
)
def test_people_argilla_record_that_is_not_as_exported_is_named(town, changed, said):
    rows = town.export("--num", "2")
    town.answer_in_argilla(rows, [["a"], ["b"]], **changed)
    with pytest.raises(SheetError, match=said):
        town.people()


def test_people_argilla_file_that_is_no_list_of_records_is_an_error(town):
    town.answered = town.folder / "other.json"
    town.answered.write_text('{"records": 1}')
    with pytest.raises(SheetError, match=r"other\.json: Input should be a valid array"):
        town.people()


@pytest.mark.parametrize(("answers", "came_to"), [([], ""), (["a"], "a"), (["a", "b"], "tie"), (["b", "a", "b"], "b")])
def test_argilla_answers_of_several_people_go_by_the_majority(answers, came_to):
    assert agreed(answers) == came_to


def test_people_same_comparison_twice_and_no_answer_at_all_are_errors(town):
    rows = town.export("--num", "4")
    town.write([{**row, "better": "a"} for row in [*rows, rows[0]]])
    with pytest.raises(SheetError, match="is on line"):
        town.people()
    town.write(rows)
    with pytest.raises(SheetError, match="none of 4 lines is answered"):
        town.people()


def test_people_question_that_was_reworded_since_is_an_error(town):
    rows = town.export("--num", "2")
    town.write([{**row, "better": "a"} for row in rows])
    with pytest.raises(SheetError, match="column question"):
        town.people(harmlessness_question="Which is kinder?", helpfulness_question="Which is of more use?")


def test_evaluate_people_take_the_place_of_the_judge_where_they_judged_and_agreement_is_measured(town):
    rows = town.export("--num", "30")
    town.write([{**row, "better": "a" if "rl says" in row["completion_a"] else "b"} for row in rows])
    matches = {"judge": town.matches, "people": town.people()}
    found = {(m.judge, m.measure, m.policy): m for m in rate_all(matches, POLICIES, {})}
    judged, with_people = (found[judge, "harmlessness_elo", "rl"].value for judge in ("judge", "with_people"))
    assert with_people > judged + 100
    (agreement,) = agree_all(matches, {})
    sides = {m.row_id: m.prob_a > 0.5 for m in matches["people"]}
    same = [(m.prob_a > 0.5) == sides[m.row_id] for m in town.matches if m.row_id in sides]
    assert (agreement.judge, agreement.num_samples) == ("judge", len(same))
    assert agreement.value == pytest.approx(sum(same) / len(same)) and 0 < agreement.value < 1


def test_evaluate_without_people_says_nothing_of_them(town):
    assert list(agree_all({"judge": town.matches}, {})) == []
    assert {m.judge for m in rate_all({"judge": town.matches}, POLICIES, {})} == {"judge"}
