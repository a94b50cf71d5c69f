"""`./solon capabilities`: capability benchmarks of one model, by lm-eval."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json

if TYPE_CHECKING:
    from tasks.capabilities import CapabilitiesStage
    from tasks.harness.results import Capability
    from tasks.schema import ModelRef
    from tasks.stage import Session
    from tasks.store import Manifest, Store

ModelArgument = Annotated[str, typer.Argument(help="A model of the store (models/rl), a folder, or a hub name.")]
NameArgument = Annotated[str | None, typer.Argument(help="Of the store's: a tag, version or its beginning; or newest.")]
TasksOption = Annotated[str, typer.Option("--tasks", "-t", help="lm-eval's tasks and groups: arc_easy,mmlu.")]
LimitOption = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only the first documents: for a try.")]
FewshotOption = Annotated[int | None, typer.Option("--num-fewshot", min=0, help="Worked examples; else the task's.")]
IncludeOption = Annotated[Path | None, typer.Option("--include", help="A folder of tasks of your own; its code runs.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="A running vLLM server of this model.")]
TemplateOption = Annotated[
    Literal["none", "model"], typer.Option("--chat-template", help="model: ask in turns, by the model's own template.")
]


def capabilities(
    model: ModelArgument,
    name: NameArgument = None,
    *,
    tasks: TasksOption,
    limit: LimitOption = None,
    num_fewshot: FewshotOption = None,
    include: IncludeOption = None,
    url: UrlOption = None,
    chat_template: TemplateOption = "none",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on lm-eval's tasks, each kept as a version of `capabilities`; what is there already is reused.

    lm-eval runs in an environment of its own, made at first use (0.9 GB).
    """
    from tasks.capabilities import CapabilitiesStage, folder_hash
    from tasks.harness.environment import check_tasks, installed_version, lm_eval_python, split_tasks, task_names
    from tasks.harness.running import CapabilityConfig, expect_one_server
    from tasks.serving import ServingConfig, close_all
    from tasks.stage import RunContext, Session

    asked, opened = split_tasks(tasks), open_store(store)
    config = CapabilityConfig(limit=limit, num_fewshot=num_fewshot, chat_template=chat_template)
    ref, hashed = find_model(opened, model, name), folder_hash(include) if include else None
    # a model that is asked without turns needs no template: the paper's format stands in for it
    serving = ServingConfig(url=url, chat_template="model" if chat_template == "model" else "human_assistant")
    expect_one_server(serving)
    run, python = RunContext(store=opened.uri, serving=serving), lm_eval_python()
    version = installed_version(python)
    stages = [
        CapabilitiesStage(
            run=run, model=ref, task=task, lm_eval=version, include=include, include_hash=hashed, config=config
        )
        for task in asked
    ]
    if any(stage.result(opened) is None for stage in stages):
        check_tasks(asked, task_names(python, include))
    try:
        with Console(stderr=True).status(f"{ref.model} {ref.version[:12]}") as status:
            made = [measured(stage, Session(opened, progress=Shown(status))) for stage in stages]
    finally:
        close_all()
    show(opened, ref, made, as_json)


def find_model(store: "Store", model: str, name: str | None) -> "ModelRef":
    """The model that is meant: of the store by its version, or the newest; else from outside.

    Raises: StoreError: there is none.
    """
    from tasks.store import StoreError, resolve_external_model

    if not model.startswith("models/"):
        if name is not None:
            raise typer.BadParameter(f"NAME {name!r} chooses among the store's versions: {model!r} is from outside")
        return resolve_external_model(model)
    if name is not None:
        return store.resolve(model, name).model_ref()
    made = store.versions(model)
    if not made:
        known = ", ".join(each for each in store.datasets() if each.startswith("models/")) or "none"
        raise StoreError(f"store {store.uri}: no version of {model}; its models are {known}; a folder begins with ./")
    return made[-1].model_ref()


def measured(stage: "CapabilitiesStage", session: "Session") -> tuple["Manifest", bool]:
    """The version of a task, and whether it was there already."""
    found = stage.result(session.store)
    ref = found or stage.make(session)
    return session.store.manifest(stage.dataset, ref.version), found is not None


class Shown:
    """Progress as one line on the terminal."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def update(self, done: int, total: int, note: str) -> None:
        self._status.update(f"{note}: {done} of {total} requests")

    def rows(self, rows: Any, items: Any) -> None:
        return None

    def trained(self, kind: str, metrics: Any) -> None:
        return None


def show(store: "Store", ref: "ModelRef", made: "list[tuple[Manifest, bool]]", as_json: bool) -> None:
    from tasks.harness.results import Capability
    from tasks.store.identity import table_to_rows

    rows = [row for manifest, _ in made for row in table_to_rows(store.read(manifest.dataset_ref()), Capability)]
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    console.print(metrics_table(ref, rows))
    for manifest, reused in made:
        task, where = manifest.derivation.config["task"], f"capabilities {manifest.version[:12]}"
        console.print(Text(f"{task}: {where}{', reused' if reused else ''}"))
    for row in rows:
        if row.num_truncated:
            what = (
                f"{row.num_truncated} of {row.num_samples} documents did not fit the context and lost their beginning"
            )
            console.print(Text(f"{row.task} ({row.metric}): {what}"))


def metrics_table(ref: "ModelRef", rows: "list[Capability]") -> Table:
    """Task, metric, value, standard error, documents; a figure that may not be believed says why in its place."""
    title = f"{ref.source or ref.model}, {ref.version[:12]}, by lm-eval"
    table = Table("task", "metric", "better", "value", "stderr", "n", "shots", title=title)
    for row in rows:
        metric = row.metric if row.filter == "none" else f"{row.metric}, {row.filter}"
        better = {True: "higher", False: "lower", None: ""}[row.higher_is_better]
        value = f"{row.value:.4f}" if row.status == "ok" and row.value is not None else (row.reason or "")
        n = f"{row.num_samples} of {row.num_all}" if (row.num_all or 0) > row.num_samples else str(row.num_samples)
        error, shots = (
            f"{row.stderr:.4f}" if row.stderr is not None else "",
            "" if row.num_fewshot is None else row.num_fewshot,
        )
        table.add_row(Text(row.task), Text(metric), better, Text(value), error, n, str(shots))
    return table
