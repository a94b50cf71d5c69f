"""The tables of `benchmarks.ppo`: speed, outcome, and where the time goes. Medians over seeds, with the range."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.ppo_outcome import Outcome, difference
from tasks.training.rl_config import PPOConfig

if TYPE_CHECKING:
    from benchmarks.ppo import Run

TITLES = {
    "trl": "TRL 1.12, its defaults",
    "trl-tuned": "TRL 1.12, tuned",
    "trl-without-collect": "TRL 1.12, tuned, without gc.collect",
    "solon": "Solon",
    "floor": "bare passes",
}
SECTIONS = ("sample", "measure", "optimise", "gc", "rest")
TRAINERS = ("trl", "trl-tuned", "trl-without-collect", "solon")


def print_tables(runs: "Sequence[Run]", before: Outcome, config: PPOConfig) -> None:
    """Raises: SystemExit: the trainers did not make the same number of updates and optimizer steps."""
    check_same_work(runs)
    for column in ("trl", "solon"):
        found = of(runs, column)[0].figures["versions"]
        print(f"{TITLES[column]}: {', '.join(f'{name} {version}' for name, version in found.items())}")
    print_speed(runs, config)
    print_outcome(runs, before, config)
    print_at_their_distance(runs, before)
    print_profile(runs, config)


def check_same_work(runs: "Sequence[Run]") -> None:
    done = {
        (run.column, run.figures["num_updates"], run.figures["optimizer_steps"])
        for run in runs
        if run.column in TRAINERS
    }
    if len({work[1:] for work in done}) != 1:
        raise SystemExit(
            f"(column, updates, optimizer steps) are {sorted(done)}, expected the same work in each column"
        )


def print_speed(runs: "Sequence[Run]", config: PPOConfig) -> None:
    columns = ("ms a sample", "CPU ms a sample", "samples a second", "seconds in all", "peak MiB", "optimizer steps")
    header = ["", *columns, "Solon is faster by", "by CPU time"]
    lines = []
    for column in TRAINERS:
        mine = of(runs, column)
        lines.append(
            [
                TITLES[column],
                spread([1000 * per_sample(run, config) for run in mine]),
                spread([1000 * per_sample(run, config, "loop_cpu_seconds") for run in mine]),
                spread([1 / per_sample(run, config) for run in mine]),
                spread([run.seconds for run in mine]),
                spread([run.figures["peak_mib"] for run in mine], "{:.0f}"),
                str(mine[0].figures["optimizer_steps"]),
                spread(ratios(runs, column, lambda run: per_sample(run, config)), "{:.2f}"),
                spread(ratios(runs, column, lambda run: per_sample(run, config, "loop_cpu_seconds")), "{:.2f}"),
            ]
        )
    seeds = ", ".join(str(run.seed) for run in of(runs, "solon"))
    print(f"\nSpeed, training loop after the first update, seeds {seeds}: median (range)\n")
    print_table(header, lines)


def print_outcome(runs: "Sequence[Run]", before: Outcome, config: PPOConfig) -> None:
    header = ["policy", "score", "KL", f"score - {config.kl_coef} KL", "ended", "tokens"]
    found = {"SL policy": [before]}
    for column in TRAINERS:
        found[TITLES[column]] = [run.outcome for run in of(runs, column) if run.outcome]
    lines = [
        [
            title,
            spread([each.score for each in mine], "{:.3f}"),
            spread([each.kl for each in mine], "{:.3f}"),
            spread([each.score - config.kl_coef * each.kl for each in mine], "{:.3f}"),
            spread([each.ended for each in mine], "{:.3f}"),
            spread([each.num_tokens for each in mine]),
        ]
        for title, mine in found.items()
    ]
    print(f"\nFresh samples of the policies after {config.num_updates * config.batch_size} training samples\n")
    print_table(header, lines)


def print_at_their_distance(runs: "Sequence[Run]", before: Outcome) -> None:
    header = ["seed", "beside", "its KL", "Solon's update", "its KL", "score less TRL's", "95 % interval"]
    lines = []
    for run in of(runs, "solon"):
        for column in ("trl", "trl-tuned"):
            theirs = next(other.outcome for other in of(runs, column) if other.seed == run.seed and other.outcome)
            update, ours = nearest(run, theirs.kl, before)
            less, half = difference(ours, theirs)
            cells = [str(run.seed), TITLES[column], f"{theirs.kl:.3f}", str(update), f"{ours.kl:.3f}"]
            lines.append([*cells, f"{less:+.3f}", f"{less - half:+.3f} to {less + half:+.3f}"])
    print("\nAt no more KL than TRL's: the last policy of Solon's way that is no farther, on the same prompts\n")
    print_table(header, lines)
    print("\nSolon's way, update: score, KL\n")
    for run in of(runs, "solon"):
        steps = "; ".join(f"{update}: {each.score:.3f}, {each.kl:.3f}" for update, each in run.path.items())
        print(f"seed {run.seed}: {steps}")


def nearest(solon: "Run", limit: float, before: Outcome) -> tuple[int, Outcome]:
    """The last of Solon's policies, the SL policy first, that has at most this KL, and its update."""
    policies = {0: before, **solon.path}
    if solon.outcome:
        policies[solon.figures["num_updates"]] = solon.outcome
    return [(update, each) for update, each in policies.items() if each.kl <= limit][-1]


def print_profile(runs: "Sequence[Run]", config: PPOConfig) -> None:
    header = ["CPU ms a sample (share)", *SECTIONS, "sum"]
    lines = []
    for column, title in TITLES.items():
        sections = SECTIONS[:3] if column == "floor" else SECTIONS  # what lies between the bare passes is no floor
        cells = {name: median(1000 * section(run, name, config) for run in of(runs, column)) for name in sections}
        total = sum(cells.values())
        shown = [f"{cells[name]:.2f} ({cells[name] / total:.0%})" if name in cells else "-" for name in SECTIONS]
        lines.append([title, *shown, f"{total:.2f}"])
    print(
        "\nWhere the time goes: sampling; scores, values, log-probabilities and advantages; learning; "
        "Python's collection of garbage, wherever it ran; the rest\n"
    )
    print_table(header, lines)


def of(runs: "Sequence[Run]", column: str) -> "list[Run]":
    """A column's runs, by seed."""
    return sorted((run for run in runs if run.column == column), key=lambda run: run.seed)


def ratios(runs: "Sequence[Run]", column: str, figure: "Callable[[Run], float]") -> list[float]:
    """How many times Solon's figure another column's is, seed by seed."""
    pairs = zip(of(runs, column), of(runs, "solon"), strict=True)
    return [figure(other) / figure(solon) for other, solon in pairs]


def per_sample(run: "Run", config: PPOConfig, seconds: str = "loop_seconds") -> float:
    return run.figures[seconds] / ((run.figures["num_updates"] - 1) * config.batch_size)


def section(run: "Run", name: str, config: PPOConfig) -> float:
    return run.figures["sections"].get(name, 0.0) / ((run.figures["num_updates"] - 1) * config.batch_size)


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """Median and range; of a single value, or where all are shown alike, only that."""
    shown = [form.format(value) for value in (median(values), min(values), max(values))]
    return shown[0] if len({*shown}) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """In Markdown."""
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    for line in (header, ["-" * width for width in widths], *lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
