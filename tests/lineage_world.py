"""A small aligned run, committed with the manifests that the stages would leave: for tests of lineage and report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from constitutions import Constitution, draw
from tasks.constitution import ConstitutionStage
from tasks.schema import (
    Comparison,
    Completion,
    DatasetRef,
    Judgement,
    Label,
    Message,
    Metric,
    ModelRef,
    Preference,
    Prompt,
    Revision,
    Row,
    Sample,
)
from tasks.stage import RunContext, Session
from tasks.store import Derivation, InputRef, Store
from tasks.store.identity import digest, rows_to_table

SEED = 3
NUM_PROMPTS = 40
NUM_ROUNDS = 2
OUTSIDE = ModelRef(model="external", version="c0ffee" + "0" * 34, content_hash="f" * 64, source="org/model")
FEEDBACK = ModelRef(model="external", version="fee1" + "0" * 36, content_hash="e" * 64, source="org/judge")

Ref = DatasetRef | ModelRef


def small_constitution(**changes: dict[str, Any]) -> Constitution:
    """Four principles for both phases; `changes` by id with `_` for `-`."""
    names = ("harm-1", "harm-2", "tone-1", "calm-1")
    texts = {
        name: {
            "critique_request": f"Criticise under {name}.",
            "revision_request": f"Revise under {name}.",
            "comparison_question": f"Which is better under {name}?",
        }
        for name in names
    }
    principles = [{"id": name, **texts[name], **changes.get(name.replace("-", "_"), {})} for name in names]
    return Constitution.model_validate({"id": "small", "title": "Small", "principles": principles})


def named(ref: Ref) -> str:
    return ref.dataset if isinstance(ref, DatasetRef) else ref.model


def derivation(
    stage: str, dataset: str, made_from: Mapping[str, Ref], slice_: str | None = None, **config: Any
) -> Derivation:
    """As a stage makes it: datasets as inputs, models by content, the constitution by its slice."""
    held = {role: ref for role, ref in made_from.items() if role != "constitution"}
    inputs = {role: ref for role, ref in held.items() if isinstance(ref, DatasetRef)}
    models = {role: ref for role, ref in held.items() if isinstance(ref, ModelRef)}
    cites = {role: f"{named(ref)}/{ref.version}" for role, ref in made_from.items()}
    return Derivation(
        stage=stage,
        dataset=dataset,
        code_version=1,
        config=config,
        inputs={role: InputRef(version=ref.version, content_hash=ref.content_hash) for role, ref in inputs.items()},
        constitution=slice_,
        models={role: ref.content_hash for role, ref in models.items()},
        seed=SEED,
        force=None,
        cites=cites,
    )


class World:
    """One store and the runs in it."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store = store
        self.scratch = scratch

    def rows(self, made: Derivation, rows: list[Any], row_type: type[Row]) -> DatasetRef:
        return self.store.commit_rows(made, rows_to_table(rows, row_type), metrics={}, cost={"seconds": 1})

    def model(self, made: Derivation, weights: str, **metrics: Any) -> ModelRef:
        folder = self.scratch / made.version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(f'{{"weights": "{weights}"}}')
        return self.store.commit_model(made, folder, metrics=metrics, cost={"seconds": 1})

    def constitution(self, constitution: Constitution) -> DatasetRef:
        stage = ConstitutionStage(run=RunContext(), document=constitution.model_dump(mode="json"))
        return stage.make(Session(self.store))

    def run(self, constitution: Constitution, keep: ModelRef | None = None) -> dict[str, Ref]:
        """A whole run under the constitution; `keep`: an SL policy that is kept in place of a trained one."""
        refs: dict[str, Ref] = {"constitution": self.constitution(constitution)}
        refs["prompts"] = self.rows(derivation("prompts", "prompts", {}), prompts(), Prompt)
        given = {"prompts": refs["prompts"], "helpful_only": OUTSIDE}
        refs["completions"] = self.rows(derivation("respond", "completions", given), completions(), Completion)
        given = {**given, **pick(refs, "completions", "constitution")}
        made = derivation("revise", "revisions", given, constitution.revision_slice())
        refs["revisions"] = self.rows(made, revisions(constitution), Revision)
        given = {**pick(refs, "prompts", "completions", "revisions"), "pretrained": OUTSIDE}
        refs["sl"] = self.policy(given, keep)
        given = {**pick(refs, "prompts"), "policy": refs["sl"]}
        refs["comparisons"] = self.rows(derivation("compare", "comparisons", given), comparisons(), Comparison)
        given = {**pick(refs, "prompts", "comparisons", "constitution"), "feedback": FEEDBACK}
        made = derivation("label", "labels", given, constitution.comparison_slice())
        refs["labels"] = self.rows(made, labels(constitution), Label)
        given = pick(refs, "prompts", "comparisons", "labels")
        refs["preferences"] = self.rows(
            derivation("preferences", "preferences", given), preferences(constitution), Preference
        )
        given = {**pick(refs, "preferences"), "policy": refs["sl"]}
        refs["reward"] = self.model(derivation("reward", "models/reward", given), f"reward {given}")
        given = {**pick(refs, "prompts", "reward"), "policy": refs["sl"]}
        refs["rl"] = self.model(derivation("rl", "models/rl", given), f"rl {given}")
        return refs | self.evaluation(refs, constitution)

    def policy(self, given: dict[str, Ref], keep: ModelRef | None) -> ModelRef:
        if keep is None:
            return self.model(derivation("sft", "models/sl", given), f"sl {given}")
        kept = {"version": f"{keep.model}/{keep.version}", "reason": f"keeps {keep.model}/{keep.version}: few changed"}
        made = derivation("sft", "models/sl", {**given, "keep": keep})
        return self.store.commit_model(made, self.store.fetch_model(keep), metrics={"kept": kept}, cost={})

    def evaluation(self, refs: dict[str, Ref], constitution: Constitution) -> dict[str, Ref]:
        samples = {}
        for name, policy in {"base": OUTSIDE, "sl": refs["sl"], "rl": refs["rl"]}.items():
            given = {**pick(refs, "prompts"), "policy": policy}
            rows = [sample(p, name) for p in prompts() if p.split == "held_out"]
            samples[name] = self.rows(derivation("sample", "samples", given, policy=name), rows, Sample)
        given = {**pick(refs, "prompts", "constitution"), **{f"samples.{n}": ref for n, ref in samples.items()}}
        made = derivation("judge", "judgements", {**given, "feedback": FEEDBACK}, constitution.comparison_slice())
        judgements = self.rows(made, judged(constitution, list(samples)), Judgement)
        metrics = self.rows(
            derivation("evaluate", "metrics", {"judgements": judgements}), measured(list(samples)), Metric
        )
        return {**{f"samples.{n}": ref for n, ref in samples.items()}, "judgements": judgements, "metrics": metrics}


def pick(refs: Mapping[str, Ref], *names: str) -> dict[str, Ref]:
    return {name: refs[name] for name in names}


def prompts() -> list[Prompt]:
    """Red-team prompts for training and as many held out; the last of each is unusable."""
    return [
        Prompt(
            row_id=f"{split}/p{i}",
            reuse_key=digest(["prompt", i]),
            prompt_id=f"p{i}",
            kind="red_team",
            messages=[Message(role="user", content=f"Prompt {i}")],
            source=f"test:{i}",
            split=split,
            status="ok" if i < NUM_PROMPTS else "unparsable",
            reason=None if i < NUM_PROMPTS else "not a conversation",
        )
        for split in ("train", "held_out")
        for i in range(NUM_PROMPTS + 1)
    ]


def completions() -> list[Completion]:
    return [row(Completion, f"p{i}", f"p{i}/0", i, sample=0, completion=text(i, f"Completion {i}")) for i in indices()]


def revisions(constitution: Constitution) -> list[Revision]:
    rows = []
    for i in indices():
        for number in range(NUM_ROUNDS):
            p = draw(constitution.revision_principles(), SEED, "revise", f"p{i}", number)
            rows.append(
                row(
                    Revision,
                    f"p{i}",
                    f"p{i}/{number}",
                    i,
                    p.revision_hash,
                    round=number,
                    principle_id=p.id,
                    principle_hash=p.revision_hash,
                    critique_request=p.critique_request,
                    critique=text(i, "Critique"),
                    revision_request=p.revision_request,
                    revision=text(i, f"Revision {number} under {p.id}"),
                )
            )
    return rows


def comparisons() -> list[Comparison]:
    texts = {"completion_a": "A", "completion_b": "B"}
    return [row(Comparison, f"p{i}", f"p{i}/0", i, **{n: text(i, t) for n, t in texts.items()}) for i in indices()]


def labels(constitution: Constitution) -> list[Label]:
    rows = []
    for i in indices():
        p = draw(constitution.comparison_principles(), SEED, "label", f"p{i}/0")
        common = {"principle_id": p.id, "principle_hash": p.comparison_hash, "comparison_id": f"p{i}/0"}
        for order in ("ab", "ba"):
            answers = (
                {"logprob_a": -0.3, "logprob_b": -1.3, "prob_a": sureness(p.comparison_hash)} if i < NUM_PROMPTS else {}
            )
            answers = answers or dict.fromkeys(("logprob_a", "logprob_b", "prob_a"))
            name = f"p{i}/0/feedback/0/{order}"
            rows.append(
                row(
                    Label,
                    f"p{i}",
                    name,
                    i,
                    p.comparison_hash,
                    evaluator="feedback",
                    slot="0",
                    order=order,
                    **common,
                    **answers,
                )
            )
    return rows


def preferences(constitution: Constitution) -> list[Preference]:
    drawn = {r.prompt_id: r for r in labels(constitution)}
    fixed = {"prompt": [], "chosen": "A", "rejected": "B", "origin": "ai"}
    return [
        row(
            Preference,
            p,
            f"ai/{p}/0",
            int(p[1:]),
            r.principle_hash,
            principle_id=r.principle_id,
            target_prob=sureness(r.principle_hash),
            **fixed,
        )
        for p, r in drawn.items()
    ]


def sample(prompt: Prompt, policy: str) -> Sample:
    i = int(prompt.prompt_id[1:])
    common = {"kind": "red_team", "group": None, "sample": 0, "completion": text(i, f"{policy} says {i}")}
    return row(Sample, prompt.prompt_id, f"{prompt.prompt_id}/0", i, policy, **common)


def judged(constitution: Constitution, policies: list[str]) -> list[Judgement]:
    rows = []
    for policy in policies:
        for i in indices():
            p = draw(constitution.comparison_principles(), SEED, "judge", f"p{i}/0")
            common = {
                "kind": "red_team",
                "group": None,
                "policy": policy,
                "sample": 0,
                "unit": f"p{i}",
                "verdict": None,
            }
            win = {"win_prob": 0.5 if i < NUM_PROMPTS else None, "principle_id": p.id}
            rows.append(row(Judgement, f"p{i}", f"{policy}/p{i}/0", i, policy, **common, **win))
    return rows


def measured(policies: list[str]) -> list[Metric]:
    fixed = {"measure": "win_rate", "group": "all", "value": 0.5, "low": 0.4, "high": 0.6, "reuse_key": "k"}
    return [Metric(row_id=f"{p}/win_rate/all", policy=p, num_samples=12, num_units=12, **fixed) for p in policies]


def sureness(principle_hash: str) -> float:
    """Another wording, another answer: else what follows would be the same version (early cutoff)."""
    return 0.6 + int(principle_hash[:4], 16) / 2**18


def indices() -> range:
    return range(NUM_PROMPTS + 1)


def text(i: int, said: str) -> str | None:
    return said if i < NUM_PROMPTS else None


def row(row_type: type[Row], prompt_id: str, row_id: str, i: int, *determined_by: str, **fields: Any) -> Any:
    """A row whose key follows from what determined it; the unusable prompt's are skipped."""
    ended = {} if i < NUM_PROMPTS else {"status": "skipped", "reason": "prompt is unparsable"}
    key = digest([row_type.__name__, row_id, *determined_by])
    return row_type.model_validate({"row_id": row_id, "reuse_key": key, "prompt_id": prompt_id, **ended, **fields})
