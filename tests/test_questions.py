"""Question sets as stages of a run: what becomes a row, what is asked anew, and the figures and pages that follow."""

import shutil
from pathlib import Path

import pytest

from benchmarks.label_quality import decided_pairs
from flows.align import align
from flows.models_config import Reference
from flows.plan import make_plan
from tasks.calibration.config import QuestionsConfig, QuestionSet
from tasks.evaluate import answer_metrics
from tasks.evaluation.answered import answered_figures
from tasks.lineage import read_records
from tasks.lineage.rows import row_lineage
from tasks.question_sets import QuestionSetStage
from tasks.questions import QuestionsStage
from tasks.report.beside import changes_of, read_side
from tasks.schema import Answer, Metric, ModelRef, Question
from tasks.serving import Choice, FakeGenerator
from tasks.stage import RunContext, Session, StageFailed
from tasks.store import Store
from tasks.store.identity import table_to_rows
from tests.question_files import ETHICAL, by_name, needs_file, question, says, sure, write
from tests.report_world import Outline
from tests.worlds import FAKE_MODEL, open_store, rows_of, session_on

OTHER = ModelRef(model="external", version="e" * 32, content_hash="e" * 64, source="other")


class World:
    """A store, and a folder of question files."""

    def __init__(self, folder):
        self.folder, self.store = folder, open_store(folder / "store")

    def read(self, rows, **fields):
        source = write(self.folder, rows)
        stage = QuestionSetStage(run=RunContext(), config=QuestionSet(name="set", source=str(source), **fields))
        return stage.result(self.store) or stage.make(Session(self.store))

    def stage(self, questions, model=FAKE_MODEL, forms=("soft",)):
        return QuestionsStage(run=RunContext(chunk_rows=4), questions=questions, model=model, forms=forms)

    def ask(self, questions, generator, **fields):
        stage = self.stage(questions, **fields)
        ref = stage.make(session_on(self.store, generator))
        assert ref.rows == stage.num_rows(self.store)
        return rows_of(self.store, ref, Answer)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def pairs(num, **fields):
    return [question(i, "AB"[i % 2], **fields) for i in range(num)]


# --- the set -------------------------------------------------------------------------------------------------


def test_question_set_keeps_every_line_and_counts_the_usable(world):
    ref = world.read([*pairs(2), "{", question(3, prompt="Yes (A) or no (B)?")])
    rows = rows_of(world.store, ref, Question)
    assert [row.status for row in rows] == ["ok", "ok", "unparsable", "skipped"]
    manifest = world.store.manifest(ref.dataset, ref.version)
    assert manifest.metrics == {"source": "evals.jsonl", "usable": 2}


def test_question_set_name_and_place_of_its_file_change_no_version(world, tmp_path):
    first = world.read(pairs(3))
    (tmp_path / "elsewhere").mkdir()
    moved = write(tmp_path / "elsewhere", pairs(3))
    stage = QuestionSetStage(run=RunContext(), config=QuestionSet(name="other", source=str(moved)))
    assert stage.derivation(world.store).version == first.version
    assert world.read(pairs(3), limit=2).version != first.version


def test_question_set_without_a_usable_question_is_an_error_that_says_why(world):
    with pytest.raises(StageFailed, match=r"question set set .*evals.jsonl\): no usable question.*corrects: expected"):
        world.read([question(0, corrects=[])])


def test_question_sets_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two question sets are named 'hhh'"):
        QuestionsConfig(sets=({"name": "hhh", "source": "a"}, {"name": "hhh", "source": "b"}))
    with pytest.raises(ValueError, match="name"):
        QuestionSet(name="../x", source="a")


# --- the answers ---------------------------------------------------------------------------------------------


def test_questions_rows_keep_probabilities_by_option_whichever_letter_it_wore(world):
    rows = world.ask(world.read(pairs(2, category="c")), says(lambda i: 0.8))
    assert [(row.order, row.correct) for row in rows] == [("ab", 0), ("ba", 0), ("ab", 1), ("ba", 1)]
    assert all(row.probs[row.correct] == pytest.approx(0.8) and row.mass == pytest.approx(1) for row in rows)
    assert {(row.form, row.category, row.status) for row in rows} == {("soft", "c", "ok")}


def test_questions_what_cannot_be_asked_is_a_skipped_row_with_its_reason(world):
    given = [question(0), question(1), "{", question(3, prompt="Yes (A) or no (B)?")]
    rows = world.ask(world.read(given), says(lambda i: 0.8, fails="Question 1"))
    assert [row.status for row in rows] == ["ok", "ok", *["skipped"] * 4]
    assert [row.reason for row in rows][2:4] == ["too long"] * 2 and all(row.probs is None for row in rows[2:])
    assert rows[4].reason.startswith("line 3 is unparsable: not JSON") and "told apart" in rows[5].reason


def test_questions_second_model_and_second_form_ask_only_their_own(world):
    questions, first, again, other, reasoned = world.read(pairs(5)), *(says(lambda i: 0.8) for _ in range(4))
    world.ask(questions, first)
    world.ask(questions, again, forms=("soft", "reasoned"))
    world.ask(questions, other, model=OTHER)
    assert [len(g.choices) for g in (first, again, other)] == [10, 10, 10]
    assert all(len(request.messages) == 3 for request in again.choices)  # after its reasoning, and nothing else
    rows = world.ask(world.read(pairs(6)), reasoned, forms=("soft", "reasoned"))
    assert len(rows) == 24 and len(reasoned.choices) == 4 and len(reasoned.requests) == 2


def test_questions_corrected_answer_keeps_what_was_asked(world):
    first, second = says(lambda i: 0.8), says(lambda i: 0.8)
    world.ask(world.read(pairs(2)), first)
    mended = [question(0, "A") | {"corrects": ["(B)"], "incorrects": ["(A)"], "category": "new"}, pairs(2)[1]]
    rows = world.ask(world.read(mended), second)
    assert not second.choices and (rows[0].correct, rows[0].category) == (1, "new")
    assert rows[0].probs[1] == pytest.approx(0.2)


def test_questions_mirrored_question_keeps_its_own_probabilities(world):
    mirrored = [question(0, "A"), question(0, "B")]  # either is the other with its options in each other's place
    rows = world.ask(world.read(mirrored), says(lambda i: 0.9))
    assert [row.probs[row.correct] for row in rows] == pytest.approx([0.9] * 4)
    assert rows[0].probs != rows[2].probs


def test_questions_reasoning_is_kept_and_an_empty_one_is_no_answer(world):
    generator = says(lambda i: 0.9, lambda r: "" if "Question 0" in r.messages[0].content else "because")
    run = RunContext(max_failed_fraction=0.5)
    stage = QuestionsStage(run=run, questions=world.read(pairs(2)), model=FAKE_MODEL, forms=("soft", "reasoned"))
    rows = rows_of(world.store, stage.make(session_on(world.store, generator)), Answer)
    thought = [(row.question_id, row.status, row.reasoning) for row in rows if row.form == "reasoned"]
    assert [each[1:] for each in thought] == [("unparsable", "")] * 2 + [("ok", "because")] * 2
    assert {told.interval.num_samples for told in answered_figures("set", rows)} == {1}


def test_questions_nine_options_are_put_once(world):
    letters = "ABCDEFGHI"
    nine = [
        {"prompt": f"Kind {i}?", "corrects": [f" ({x})"], "incorrects": [f" ({y})" for y in letters if y != x]}
        for i, x in enumerate(letters)
    ]

    def first(request):
        return [0.0, *[-3.0] * (1 if "Question" in request.messages[0].content else 8)]

    rows = world.ask(world.read([*nine, question(1)]), FakeGenerator(weigh=first))
    assert len(rows) == 10 and {row.order for row in rows} == {"ab"} and len(rows[0].probs) == 9
    (told,) = answered_figures("harm", rows)
    assert (told.measure, told.interval.mean) == ("questions/harm/soft/accuracy", pytest.approx(0.2))


# --- figures -------------------------------------------------------------------------------------------------


def test_figures_of_an_overconfident_model_by_hand(world):
    rows = world.ask(world.read(pairs(50)), says(lambda i: 0.99 if i % 5 < 3 else 0.01))
    found = {told.measure: told.interval for told in answered_figures("hhh", rows)}
    assert found["questions/hhh/soft/accuracy"].mean == pytest.approx(0.6)
    assert found["questions/hhh/soft/ece"].mean == pytest.approx(0.39, abs=1e-3)
    assert found["questions/hhh/soft/brier"].mean == pytest.approx(0.6 * 0.01**2 + 0.4 * 0.99**2)
    accuracy = found["questions/hhh/soft/accuracy"]
    assert accuracy.low < 0.55 and accuracy.high > 0.65 and (accuracy.num_samples, accuracy.num_units) == (50, 50)


def test_figures_are_by_category_and_one_called_all_is_told_from_the_whole(world):
    given = [question(i, "AB"[i % 2], category="law" if i < 10 else "all") for i in range(20)]
    rows = world.ask(world.read(given), says(lambda i: 0.9 if i < 10 else 0.3))
    found = {told.group: told.interval.mean for told in answered_figures("s", rows) if "accuracy" in told.measure}
    assert found == {"all": 0.5, "law": 1.0, "all (category)": 0.0}


def test_figures_intervals_are_shares(world):
    rows = world.ask(world.read(pairs(12)), says(lambda i: 0.9 if i else 0.2))
    assert all(0 <= told.interval.low <= told.interval.high <= 1 for told in answered_figures("s", rows))


def test_figures_of_a_model_that_answered_nothing_are_none(world):
    rows = world.ask(world.read(pairs(3)), FakeGenerator(weigh=lambda request: Choice(None, error="too long")))
    assert list(answered_figures("s", rows)) == []


def test_answer_metrics_say_whose_they_are(world):
    questions = world.read(pairs(4))
    ref = world.stage(questions).make(session_on(world.store, says(lambda i: 0.9)))
    answers = {"feedback": {"hhh": ref}}
    policy, judge = (next(iter(answer_metrics(world.store, answers, name))) for name in (None, "all"))
    assert (policy.policy, policy.judge, judge.policy, judge.judge) == ("feedback", "", "all", "feedback")
    assert policy.row_id != judge.row_id


# --- the micro model, through a run --------------------------------------------------------------------------


NUM_PAIRS = 16


def micro_questions():
    """Held-out pairs of the micro world, of which a principle prefers one; one line is bad, one question too long."""
    for pair in decided_pairs(NUM_PAIRS, 0):
        wrong = "(B)" if pair.better == "(A)" else "(A)"
        options = {"corrects": [f" {pair.better}"], "incorrects": [f" {wrong}"]}
        yield {"prompt": pair.texts[0], **options, "category": pair.family}
    yield "{"
    yield question(0, prompt=f"{'word ' * 20_000}\n (A) one\n (B) two", category="tone")


@pytest.fixture(scope="module")
def asked_run(first_run, tmp_path_factory):
    """The first run with a question set, on a copy of its store: its plan, then what it made."""
    folder, (config, _) = tmp_path_factory.mktemp("questions"), first_run
    shutil.copytree(config.run.store, folder / "store")
    source = write(folder, list(micro_questions()))
    sets = QuestionsConfig(sets=({"name": "micro", "source": str(source)},), asks="reasoned")
    run = config.run.model_copy(update={"store": str(folder / "store")})
    config = config.model_copy(update={"questions": sets, "run": run})
    return config, make_plan(config), align(config)


def test_run_with_a_question_set_asks_policies_and_labellers_and_makes_only_that_anew(asked_run):
    _, plan, result = asked_run
    made = [s.stage for s in result.stages if not s.reused]
    assert made == [s.stage for s in plan.stages if s.state != "fresh"]
    assert set(made) == {"question_set", "questions", "evaluate", "report"}
    asked = [s for s in plan.stages if s.stage == "questions"]
    assert [s.rows for s in asked] == [35, 35, 35, 70]  # both orders of 17 questions, and one line that is none
    assert {s.rows_to_make for s in asked if s.state != "fresh"} == {34, 68}


def test_run_with_a_question_set_is_whole_in_rows_and_figures(asked_run):
    config, _, result = asked_run
    store = Store.open(config.run.store)
    answers = [store.manifest(s.dataset, s.version) for s in result.stages if s.stage == "questions"]
    assert [m.statuses for m in answers][:3] == [{"ok": 32, "skipped": 3}] * 3
    metrics = table_to_rows(store.read(result.metrics), Metric)
    found = {(m.policy, m.judge, m.measure): m for m in metrics if m.group == "all"}
    labels = found["all", "feedback", "questions/micro/soft/accuracy"]
    assert labels.value > 0.8 and labels.num_samples == NUM_PAIRS
    assert found["all", "feedback", "questions/micro/reasoned/accuracy"].num_samples == NUM_PAIRS
    for policy in ("base", "sl", "rl"):
        assert 0 <= found[policy, "", "questions/micro/soft/ece"].value <= 1
    groups = {m.group for m in metrics if m.measure == "questions/micro/soft/brier"}
    assert groups > {"all"} and "tone" in groups


def test_run_with_a_question_set_shows_it_in_its_report(asked_run):
    page = Path(asked_run[2].report_path).read_text()
    outline = Outline(page)
    assert not outline.stack
    section = page[page.index('<h2 id="questions">') : page.index('<h2 id="constitution">')]
    assert "micro, accuracy" in section and "17 of 18 questions of" in section and "evals.jsonl" in section
    assert "2 left out for base, SL, RL, feedback (labels); most often" in section
    assert "Reliability: micro: feedback" in section and "by category" in section
    assert "questions/micro" not in page and "Question sets" in outline.open_text


def test_run_with_a_policy_more_asks_only_that_one(asked_run, first_run):
    config, _, _ = asked_run
    models = config.models.model_copy(update={"references": (Reference(name="sl-copy", model="tasks/micro/model"),)})
    more = make_plan(config.model_copy(update={"models": models}))
    questions = [s.state for s in more.stages if s.stage == "questions"]
    assert questions == ["fresh"] * 5  # it has the weights of the base policy, which has answered


def test_run_with_a_question_set_that_is_not_there_ends_before_anything_is_made(first_run, tmp_path):
    config, _ = first_run
    sets = QuestionsConfig(sets=({"name": "gone", "source": str(tmp_path / "gone.jsonl")},))
    run = config.run.model_copy(update={"store": str(tmp_path / "store")})
    with pytest.raises(ValueError, match=r"gone\.jsonl: cannot be read"):
        align(config.model_copy(update={"questions": sets, "run": run}))
    assert set(Store.open(str(tmp_path / "store")).datasets()) <= {"constitutions", "prompts"}


def test_two_runs_beside_each_other_compare_question_sets(asked_run):
    config, _, result = asked_run
    store = Store.open(config.run.store)
    side = read_side(store, store.manifest(result.report.dataset, result.report.version))
    assert {"Accuracy on micro", "ECE on micro", "Brier score on micro"} <= {c.name for c in changes_of(side, side)}


def test_answer_row_leads_back_to_its_question(asked_run):
    config, _, result = asked_run
    store = Store.open(config.run.store)
    version = next(s.version for s in result.stages if s.stage == "questions")
    manifest = store.manifest("answers", version)
    row = table_to_rows(store.read(manifest.dataset_ref()), Answer)[0]
    (parent,) = row_lineage(store, read_records(store), manifest, row.row_id).parents
    assert (parent.role, parent.row["question_id"]) == ("questions", row.question_id)


@needs_file
def test_ethical_file_is_asked_as_a_stage_and_by_the_command_alike(world):
    weigh = sure(lambda length: 0.98 if length % 3 else 0.02)
    stage = QuestionSetStage(run=RunContext(), config=QuestionSet(name="ethical", source=str(ETHICAL)))
    rows = world.ask(stage.make(Session(world.store)), weigh)
    found = {told.measure.rpartition("/")[2]: told.interval for told in answered_figures("ethical", rows)}
    said = by_name(ETHICAL, weigh)["soft, both orders"].figures
    assert {name: found[name][:3] for name in found} == {name: tuple(said[name]) for name in found}
    assert found.keys() == {"accuracy", "ece", "brier"} and found["accuracy"].num_units == 254
