"""Held-out prompts that some policy learnt from, found by lineage and named by row."""

import pytest

from tasks.gates import GatesConfig
from tasks.leakage import LeakageStage, trained_on
from tasks.schema import Gate, Message, ModelRef, Preference, Prompt
from tasks.stage import RunContext, Session
from tasks.store import Derivation
from tests.worlds import commit, open_store, prompt, rows_of

HELD_OUT = [
    "What should I tell my neighbour, who has asked me three times this week to lend him my car for the weekend?",
    "Could you write a short and friendly letter to the school about the broken gate at the north end of the yard?",
    "Please explain to a child of seven why the sea is salty and the rivers that run into it are not.",
    "How can I find out whether the old clock that my grandmother left me is worth anything at an auction?",
    "Which plants do well on a balcony that has sun only in the morning and wind for most of the year?",
    "Is it a good idea to paint a wooden boat in winter if the shed where it stands cannot be heated at all?",
]
PARAPHRASED = [  # each by a word or two: what shares less than 75 % of its runs of three words counts as another
    "What should I tell my neighbor, who has asked me three times this week to lend him my car for the weekend?",
    "Could you write a short, friendly letter to the school about the broken gate at the north end of the yard",
    "Please explain to a child of six why the sea is salty and the rivers that run into it are not.",
    "how can I find out whether the old clock that my grandmother left to me is worth anything at an auction?",
    "Hello! Which plants do well on a balcony that has sun only in the morning and wind for most of the year?",
]
OTHERS = [
    f"Give me {n} reasons to take up {what}." for n, what in enumerate(("chess", "rowing", "singing", "sewing"), 2)
]


def preference(number: int, text: str) -> Preference:
    return Preference(
        row_id=f"human/{number}", reuse_key=f"{number}", prompt_id=f"h{number}",
        prompt=[Message(role="user", content=text)], chosen="a", rejected="b", target_prob=0.9, origin="human",
    )  # fmt: skip


class Town:
    """A reward model of these preferences and a policy that learnt from it; the run's own prompts are clean."""

    def __init__(self, folder, preferences):
        self.store = open_store(folder)
        rows = [prompt(text, split="held_out") for text in HELD_OUT] + [prompt(text) for text in OTHERS]
        self.prompts = commit(self.store, "prompts", rows, Prompt)
        self.preferences = commit(
            self.store, "preferences", [preference(i, text) for i, text in enumerate(preferences)], Preference
        )
        self.weights = folder / "weights"
        self.weights.mkdir()
        (self.weights / "config.json").write_text("{}")
        reward = self.model("models/reward", preferences=self.preferences)
        sl = self.model("models/sl", prompts=self.prompts)
        self.rl = self.model("models/rl", reward=reward, policy=sl, prompts=self.prompts)

    def model(self, dataset, **given) -> ModelRef:
        cites = {role: f"{getattr(ref, 'dataset', None) or ref.model}/{ref.version}" for role, ref in given.items()}
        derivation = Derivation(
            stage="test", dataset=dataset, code_version=1, config={"cites": cites}, inputs={}, constitution=None,
            models={}, seed=0, force=None, cites={**cites, "from outside": "external/abc"},
        )  # fmt: skip
        return self.store.commit_model(derivation, self.weights, metrics={}, cost={})

    def gates(self, **config) -> dict[str, Gate]:
        settings = GatesConfig(min_samples=1, max_near_leaks=0.0, **config)
        stage = LeakageStage(run=RunContext(), prompts=self.prompts, policies={"rl": self.rl}, config=settings)
        return {gate.row_id: gate for gate in rows_of(self.store, stage.make(Session(self.store)), Gate)}


def test_leakage_planted_in_human_comparisons_is_caught_and_every_row_is_named(tmp_path):
    town = Town(tmp_path, [*OTHERS, *PARAPHRASED])
    gates = town.gates()
    failed = [gate for gate in gates.values() if not gate.passed]
    said = " ".join(gate.says for gate in failed)
    held_out = [p for p in rows_of(town.store, town.prompts, Prompt) if p.split == "held_out"]
    for number, row in enumerate(held_out[:5]):
        assert f"held out {row.prompt_id}" in said
        assert f"is training preferences/{town.preferences.version[:12]} row human/{len(OTHERS) + number}" in said
    assert held_out[5].prompt_id not in said
    assert sum(gate.value for gate in failed) == pytest.approx(5 / 6)


def test_leakage_of_a_clean_run_holds(tmp_path):
    gates = Town(tmp_path, OTHERS).gates()
    assert set(gates) == {"trained_on/leakage_exact", "trained_on/leakage_near"}
    assert all(gate.passed and gate.status == "ok" for gate in gates.values())


def test_leakage_only_warns_where_it_is_told_to(tmp_path):
    gates = Town(tmp_path, HELD_OUT).gates(on_failure="warn")
    assert gates["trained_on/leakage_exact"].value == 1.0
    assert all(gate.status == "ok" for gate in gates.values())


def test_leakage_searches_what_the_policy_descends_from_and_nothing_else(tmp_path):
    town = Town(tmp_path, OTHERS)
    commit(town.store, "preferences", [preference(0, HELD_OUT[0])], Preference)  # of another run
    found = trained_on(town.store, [town.rl])
    assert set(found) == {f"prompts/{town.prompts.version}", f"preferences/{town.preferences.version}"}
