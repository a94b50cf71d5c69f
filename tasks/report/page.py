"""The page: every section's figures put into the template. The same run renders the same bytes."""

from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.evaluation.names import ORACLE
from tasks.report.coverage import clusters, conflicts, dead_principles
from tasks.report.gates import gate_cautions, gate_rows, outcome
from tasks.report.judged import ALL, judged_pairs
from tasks.report.labels import biases, jury, label_charts, label_figures
from tasks.report.ledger import STATUSES, account, costs, duration, short
from tasks.report.lineage import anchor, descent, versions
from tasks.report.material import LABELS, MATCHES, Material
from tasks.report.measures import answer, cautions, measure_tables, measures_chart, principle_lines, shares_chart
from tasks.report.over_optimisation import over_optimisation_chart, over_optimised
from tasks.report.policies import ALONG_THE_WAY, policy_name, results
from tasks.report.questions import COLUMNS, question_lines, question_sets, reliability_plots, set_names
from tasks.report.ratings import AXES, agreements, frontiers, judge_name, judges_of, rating_table, said_by_people
from tasks.report.rounds import ENDINGS, improvement_chart, rounds
from tasks.report.samples import held_out_samples, revision_chains
from tasks.report.svg import legend_mark
from tasks.report.training import FITTED, ending, left_out, reward_fit, second_model, training_charts
from tasks.schema import Metric
from tasks.store.identity import table_to_rows

POLICY_MEANINGS = {
    "base": "the helpful-only model before any alignment",
    "sl": "after supervised learning on critiqued and revised completions",
    "rl": "after reinforcement learning from AI feedback",
}


def render(material: Material) -> str:
    """A whole HTML document: no network, no script, texts of models escaped."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "duration": duration, "policy_name": policy_name, "anchor": anchor}
    environment.filters |= {"judge_name": judge_name, "outcome": outcome, "percent": percent}
    environment.globals |= {
        "legend_mark": legend_mark,
        "STATUSES": STATUSES,
        "ENDINGS": ENDINGS,
        "FITTED": FITTED,
        "AXES": AXES,
        "COLUMNS": COLUMNS,
        "ALONG_THE_WAY": ALONG_THE_WAY,
    }
    return environment.get_template("page.html.jinja").render(**sections(material))


def sections(material: Material) -> dict[str, Any]:
    """What the template shows, section by section."""
    tables, manifests, policies = material.tables, material.manifests, material.policies
    metrics = table_to_rows(tables["metrics"], Metric)
    pairs, gates = judged_pairs(material.labels), gate_rows(tables)
    revised = rounds(tables["revisions"], tables.get("improvements"))
    cost_rows, total_seconds = costs(manifests)
    return {
        "title": material.constitution.title or material.constitution.id,
        "policies": policies,
        "meanings": POLICY_MEANINGS,
        "answer": answer(metrics, policies),
        "cautions": [*cautions(metrics, policies), *judge_cautions(material), *gate_cautions(gates)],
        "measures_chart": measures_chart(metrics, policies),
        "frontiers": frontiers(metrics, policies),
        "shares_chart": shares_chart(metrics, policies),
        "ratings": rating_table(metrics, policies),
        "judges": judges_of(metrics),
        "agreements": agreements(metrics, policies),
        "people": said_by_people(metrics),
        "by_principle": principle_lines(metrics, policies),
        "question_sets": question_sets(material, metrics),
        "question_lines": question_lines(metrics, policies, set_names(material)),
        "reliability_plots": reliability_plots(material, metrics),
        "results": results(policies),
        "measure_tables": measure_tables(metrics, policies),
        "settings": settings(material),
        "constitution": material.constitution,
        "clusters": clusters(material.constitution, tables["revisions"], pairs),
        "at_once": any(pair.slot == ALL for pair in pairs),
        "dead": dead_principles(material.constitution, tables["revisions"], pairs),
        "conflicts": conflicts(pairs),
        "rounds": revised,
        "improvement_chart": improvement_chart(revised),
        "gates": gates,
        "biases": biases(pairs, material.labels),
        "jury": jury(pairs),
        "label_figures": label_figures(pairs, tables["comparisons"], tables["preferences"]),
        "label_charts": label_charts(pairs, tables["preferences"]),
        "training_charts": [*training_charts(manifests), *filter(None, [over_optimisation_chart(manifests)])],
        "ending": [*ending(manifests), *filter(None, [over_optimised(manifests)])],
        "fit": reward_fit(manifests),
        "second_model": second_model(manifests),
        "left_out": left_out(manifests),
        "red_team": held_out_samples(material, "red_team"),
        "helpful": held_out_samples(material, "helpful"),
        "chains": revision_chains(material),
        "accounts": [account(name, table) for name, table in tables.items()],
        "descent": descent(manifests),
        "versions": versions(manifests),
        "costs": cost_rows,
        "total_seconds": total_seconds,
        "longest": max(cost.share for cost in cost_rows) or 1.0,
        "newest": max(manifest.created_at for manifest in manifests.values())[:19],
    }


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def evaluator(material: Material) -> str:
    """Who judged the held-out samples, by the name in its stage's config."""
    config = material.manifests["judgements"].derivation.config.get("config") or {}
    return str(config.get("evaluator", "unknown"))


def judge_cautions(material: Material) -> list[str]:
    """Who judged, and whether that is the same model that the policy was trained to please."""
    if evaluator(material) == ORACLE:
        notes = ["Rates are judged by the micro world's rule-based oracle, which no training ever sees."]
    else:
        notes = ["Judged by a feedback model in both orders of presentation, not by people."]
    pleased = pleased_judges(material)
    if pleased:
        notes.append(
            f"The policy was optimised to please {' and '.join(pleased)}, whose labels the reward model was trained "
            "on, so the verdict flatters. Judge by another model (models.judges) before you believe the figures."
        )
    return notes


def pleased_judges(material: Material) -> list[str]:
    """The judges that are models which labelled too, by name."""
    models = {name: manifest.derivation.models for name, manifest in material.manifests.items()}
    labelled = {found.get("feedback") for name, found in models.items() if name.startswith(LABELS)} - {None}
    judges = {n.removeprefix(MATCHES): found.get("model") for n, found in models.items() if n.startswith(MATCHES)}
    if evaluator(material) != ORACLE:
        judges["the judge of the rates"] = models["judgements"].get("feedback")
    return [judge_name(name) for name, model in judges.items() if model in labelled]


def settings(material: Material) -> list[tuple[str, str]]:
    """What a reader needs to place the figures; each stage's whole config is under lineage."""
    prompts, run, constitution = material.tables["prompts"], material.run, material.constitution
    columns = (prompts.column(c).to_pylist() for c in ("split", "kind", "status"))
    serving = {key: value for key, value in run.serving.identity().items() if value not in ("", "None")}
    usable = Counter((split, kind) for split, kind, status in zip(*columns, strict=True) if status == "ok")
    return [
        ("Seed", f"{run.seed}"),
        ("Constitution", f"{constitution.id}, {len(constitution.principles)} principles, {short(constitution.hash)}"),
        ("Held-out samples judged by", evaluator(material).replace("_", " ")),
        ("Comparisons labelled by", ", ".join(material.labels)),
        ("Serving", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in serving.items())),
        ("Training prompts", f"{usable['train', 'red_team']} red-team, {usable['train', 'helpful']} helpful"),
        ("Held-out prompts", f"{usable['held_out', 'red_team']} red-team, {usable['held_out', 'helpful']} helpful"),
    ]
