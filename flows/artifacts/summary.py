"""What is on the page of a whole run at its end: a summary with the answer first, samples to read, and the lineage."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from markupsafe import Markup

from flows.artifacts.live import publish
from flows.artifacts.pictures import pictures
from flows.artifacts.stage_runs import completed_runs, runs_of
from flows.artifacts.text import exact, figure, folded, html_table, joined, plain, tag, texts_table
from tasks.report.ledger import duration
from tasks.report.measures import (
    HARM,
    HELP,
    LABELS,
    Cell,
    Line,
    answer,
    cautions,
    measure_tables,
    measures_chart,
    series,
    shares_chart,
)
from tasks.report.policies import course, policy_name, results
from tasks.report.ratings import frontiers
from tasks.report.training import Drawn
from tasks.schema import DatasetRef, Metric, Prompt, Sample
from tasks.store import Store
from tasks.store.identity import table_to_rows

if TYPE_CHECKING:
    from flows.runner import AlignResult, StageOutcome

NUM_SAMPLES = 8
"""Held-out prompts of each kind."""
MERMAID_CHARACTERS = 45_000
"""Mermaid itself draws no graph of more than 50 000."""


def publish_result(store: Store, result: "AlignResult", samples: dict[str, DatasetRef]) -> None:
    """The summary, with links to the runs of the stages, to samples of every policy and to where they came from."""
    metrics = table_to_rows(store.read(result.metrics), Metric)
    beside = {
        "What every policy says to held-out prompts": publish_samples(store, samples),
        "What the last policy came from": publish_lineage(store, result),
    }
    publish("summary", summary_blocks(metrics, list(samples), result, beside), in_short(metrics, list(samples)))


def in_short(metrics: Sequence[Metric], policies: Sequence[str]) -> str:
    """For the summary's card: each measure's course over the policies, as far as there is one."""
    policies = course(policies)
    courses = [series(metrics, policies, measure) for measure in (*HARM, *HELP)]
    figures = [f"{LABELS[c[0].measure]} {' → '.join(figure(m.value, 2) for m in c)}" for c in courses if c]
    return f"{', '.join(figures)} ({' → '.join(map(policy_name, policies))})" if figures else "Nothing was measured"


def summary_blocks(
    metrics: Sequence[Metric], policies: Sequence[str], result: "AlignResult", beside: Mapping[str, UUID | None]
) -> Iterator[Markup]:
    """The answer, the figures, their pictures, the stages, and where to read on."""
    yield tag("h3", plain(answer(metrics, policies), 1000))
    notes = [tag("li", plain(note, 1000)) for note in cautions(metrics, policies)]
    if notes:
        yield tag("ul", joined(notes))
    for group, lines in measure_tables(metrics, policies)[:1]:
        yield figures_table(group, lines, policies)
    yield from pictures(result_pictures(metrics, policies))
    yield stages_table(result.stages, runs_of(result.stages, completed_runs()))
    links = [link(f"../../artifacts/artifact/{made}", title) for title, made in beside.items() if made]
    yield tag("ul", joined(tag("li", each) for each in [*links, where(result)]))


def figures_table(group: str, lines: Sequence[Line], policies: Sequence[str]) -> Markup:
    """Measures down, policies across; intervals are of 95 %."""
    header = [f"{group} held-out prompts", *map(policy_name, policies), "samples (prompts)"]
    return html_table(header, [[line.name, *map(figure_cell, line.cells), line.num] for line in lines])


def figure_cell(cell: Cell | None) -> str | Markup:
    return Markup("{}<br><sub>{}</sub>").format(cell.value, cell.interval) if cell else "–"


def result_pictures(metrics: Sequence[Metric], policies: Sequence[str]) -> list[Drawn]:
    found = frontiers(metrics, policies)
    charts = [Drawn("Every measure", "With 95 % intervals.", measures_chart(metrics, policies))]
    charts += [Drawn(each.caption.split(",")[0], each.caption, each.chart) for each in found]
    if not found:
        plane = shares_chart(metrics, policies)
        charts.append(Drawn("Harmlessness against helpfulness", "Up and right is better.", plane))
    return [drawn for drawn in charts if drawn.chart is not None]


def stages_table(stages: Sequence["StageOutcome"], runs: Sequence[UUID | None]) -> Markup:
    """A line for each stage, with a link to the page of its run."""
    rows = [
        (
            link(f"../../runs/flow-run/{run}", stage.stage.replace("_", " ")) if run else stage.stage.replace("_", " "),
            "reused" if stage.reused else duration(stage.seconds),
            str(stage.rows or ""),
            ", ".join(f"{status} {count}" for status, count in sorted(stage.statuses.items())),
            f"{stage.dataset} {stage.version[:12]}",
        )
        for stage, run in zip(stages, runs, strict=True)
    ]
    return html_table(["stage", "made in", "rows", "how they ended", "version"], rows, right=(1, 2))


def link(address: str, title: str) -> Markup:
    """Relative to an artifact's page, so that it holds in both of Prefect's UIs and behind a proxy."""
    return Markup('<a href="{}">{}</a>').format(address, title)


def where(result: "AlignResult") -> Markup:
    """The report is a file: a browser follows no link from a server's page to it, so it is named."""
    path, version = Path(result.report_path).resolve(), result.report.version[:12]
    return Markup("The whole report: {} on {}; in the store it is {}").format(
        exact(str(path)), socket.gethostname(), exact(f"{result.report.dataset} {version}")
    )


def publish_samples(store: Store, samples: dict[str, DatasetRef]) -> UUID | None:
    about = "The first held-out prompts of each kind, and what every policy says to them"
    return publish("before-after", sample_blocks(store, samples), about)


def sample_blocks(store: Store, samples: dict[str, DatasetRef]) -> Iterator[Markup]:
    """A fold for each prompt; those of red-team prompts are closed."""
    shown = {name: samples[name] for name in results(list(samples))}
    rows = {name: {r.row_id: r for r in table_to_rows(store.read(ref), Sample)} for name, ref in shown.items()}
    first, prompts = next(iter(rows.values())), prompt_texts(store, samples)
    yield tag("p", plain("Red-team prompts, and what is said to them, may be harmful: they are folded."))
    for kind, title in (("red_team", "red-team"), ("helpful", "helpful")):
        for row in [r for r in first.values() if r.kind == kind][:NUM_SAMPLES]:
            said = [(policy_name(name), by_id[row.row_id]) for name, by_id in rows.items()]
            texts = [("prompt", prompts.get(row.prompt_id, ""))]
            texts += [(name, sample.completion or sample.reason or "") for name, sample in said]
            yield folded(f"{title} prompt {row.prompt_id[:8]}", texts_table(texts), kind == "helpful")


def prompt_texts(store: Store, samples: dict[str, DatasetRef]) -> dict[str, str]:
    """The last human turn of each held-out prompt, by id, from the prompts that the samples were taken on."""
    first = next(iter(samples.values()))
    inputs = store.manifest(first.dataset, first.version).derivation.inputs["prompts"]
    manifest = store.manifest("prompts", inputs.version)
    prompts = table_to_rows(store.read(manifest.dataset_ref()), Prompt)
    return {p.prompt_id: p.messages[-1].content for p in prompts if p.split == "held_out" and p.messages}


def publish_lineage(store: Store, result: "AlignResult") -> UUID | None:
    """What the last trained policy came from, as a graph; the earlier ones are in it. None where none was trained."""
    from tasks.lineage import mermaid, read_records, upstream

    trained = [policy for policy in result.policies.values() if policy.source is None]
    if not trained:
        return None
    name = f"{trained[-1].model}/{trained[-1].version}"
    graph = mermaid(upstream(read_records(store), name))
    if len(graph) > MERMAID_CHARACTERS:
        graph = f'flowchart TD\n    large["The graph is too large to draw: ./solon lineage {name}"]\n'
    return publish("lineage", [graph_block(graph)], f"What {name[:24]} came from")


def graph_block(graph: str) -> Markup:
    """A Mermaid graph that stands on the page itself: a fence of markdown would give it a dark ground in any scheme."""
    drawn = f"{graph.rstrip()}\n    linkStyle default stroke:#7c8894\n"
    return Markup('<div><code class="language-mermaid">{}</code></div>').format(drawn)
