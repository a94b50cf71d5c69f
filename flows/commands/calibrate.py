"""`./solon calibrate`: how far a feedback model's labels can be believed, on questions whose answers are known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.console import console

if TYPE_CHECKING:
    from tasks.calibration import Calibration, Summary
    from tasks.generation import Recipe
    from tasks.schema import ModelRef
    from tasks.serving import ServingConfig

FileArgument = Annotated[
    str, typer.Argument(help="Lines or rows with prompt, corrects and incorrects, or input and targets; also s3, hf.")
]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="A folder, or a hub name (org/name@revision).")]
FormOption = Annotated[
    Literal["soft", "reasoned"], typer.Option("--form", help="reasoned: also after reasoning, as it is and clamped.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only the first so many questions.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write a page with reliability plots to this file.")]
EngineOption = Annotated[Literal["vllm", "transformers"], typer.Option("--engine", help="What serves the model.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="A running vLLM server of this model, or several.")]
TemplateOption = Annotated[
    Literal["model", "human_assistant"], typer.Option("--chat-template", help="The model's own, or the paper's turns.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the reasoning.")]


def calibrate(
    file: FileArgument,
    model: ModelOption,
    form: FormOption = "soft",
    limit: LimitOption = None,
    html: HtmlOption = None,
    engine: EngineOption = "vllm",
    url: UrlOption = None,
    chat_template: TemplateOption = "model",
    seed: SeedOption = 0,
) -> None:
    """Accuracy, ECE, Brier score and log loss of a model's labels on a question set (HHH format)."""
    from tasks.calibration import answer, asked_of, calibration_of, expect_labels, read_questions, summarise
    from tasks.calibration.config import QuestionsConfig
    from tasks.calibration.page import render
    from tasks.readers import pinned
    from tasks.serving import ServingConfig, close_all, open_generator
    from tasks.store import resolve_external_model
    from tasks.store.external import fetch_external

    source = pinned(file)
    questions, ref = read_questions(source, limit), resolve_external_model(model)
    serving = ServingConfig(engine=engine, url=url, chat_template=chat_template)
    asked = [each for question in questions for each in asked_of(question, QuestionsConfig(asks=form).forms)]
    try:
        with open_generator(ref, fetch_external(ref), serving) as generator:
            answers = answer(asked, generator, recipe_of(ref, serving, seed))
    finally:
        close_all()
    calibration = expect_labels(calibration_of(answers))
    summaries = summarise(calibration.forms)
    show(calibration, summaries)
    if html:
        said = [*facts(source, ref, serving), ("Questions", f"{len(calibration.questions)} of {len(questions)}")]
        html.write_text(render(calibration, summaries, said), encoding="utf-8")
        console.print(Text(f"page: {html}"))


def recipe_of(ref: "ModelRef", serving: "ServingConfig", seed: int) -> "Recipe":
    """As the stage `questions` has it: the same seed draws the same reasoning."""
    from tasks.generation import Recipe
    from tasks.questions import QuestionsStage

    stage, version, written_by = QuestionsStage.stage, QuestionsStage.code_version, ref.content_hash
    return Recipe(
        stage=stage, code_version=version, model=written_by, serving=serving.identity(), sampling=None, seed=seed,
        force=None,
    )  # fmt: skip


def show(calibration: "Calibration", summaries: "list[Summary]") -> None:
    """The figures, the differences from the first form, and what was left out."""
    from tasks.calibration.figures import MEASURES
    from tasks.calibration.page import TITLES, category_rows, differences, rows

    measures = [name for name in MEASURES if name in summaries[0].figures]
    titled = f"{len(calibration.questions)} questions, 95 % bootstrap intervals"
    apart = f"Differences from {summaries[0].name}, paired"
    tables = {titled: rows(summaries, measures), apart: differences(summaries, measures)}
    tables[f"By category, {calibration.best.name}"] = category_rows(calibration, measures)
    for title, lines in tables.items():
        table = Table("label", *(TITLES[name] for name in measures), title=title)
        for line in lines:
            table.add_row(line.name, *(str(cell or "") for cell in line.cells))
        if lines:
            console.print(table)
    if "ece" in measures:
        chances = ", ".join(f"{summary.name} {summary.error_by_chance:.3f}" for summary in summaries)
        console.print(Text(f"ECE of labels that mean what they say, on so many questions: {chances}"))
    console.print(Text(f"probability of the options' letters: {calibration.mass:.3g} (median)"))
    for reason, count in calibration.left_out.most_common():
        console.print(Text(f"left out: {count}: {reason}"))


def facts(source: str, ref: "ModelRef", serving: "ServingConfig") -> list[tuple[str, str]]:
    """What was asked of whom, exactly."""
    served = {name: value for name, value in serving.identity().items() if value not in ("", "None")}
    return [
        ("Model", f"{ref.source or ref.model}, {ref.version[:12]}"),
        ("File", source_fact(source)),
        ("Serving", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in served.items())),
    ]


def source_fact(source: str) -> str:
    """A file by its name and content, another source by its address."""
    from tasks.store.models import file_sha256

    path = Path(source)
    return f"{path.name}, sha256 {file_sha256(path)[:12]}" if path.is_file() else source
