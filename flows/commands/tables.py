"""What the store holds, as tables for people. Texts come from models and files: none is read as markup."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.store import Manifest
    from tasks.store.diff import VersionDiff
    from tasks.store.doctor import Finding
    from tasks.store.verify import VersionCheck

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_OUTCOME_STYLES = {"ok": "green", "warning": "yellow", "broken": "bold red"}


def clip(value: Any, width: int) -> str:
    """A value as one line of at most `width` characters; what a terminal would obey is replaced."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


def bytes_text(count: float) -> str:
    """Bytes with a unit of 1000: `12.3 MB`."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def counts_text(counts: Mapping[str, int]) -> str:
    """`ok 38, refused 2`."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def summary(manifest: "Manifest", tags: Mapping[str, list[str]]) -> dict[str, Any]:
    """A version in one line; `bytes` is what its files take."""
    return {
        "dataset": manifest.dataset,
        "version": manifest.version,
        "tags": tags.get(manifest.version, []),
        "kind": manifest.kind,
        "rows": manifest.rows,
        "statuses": manifest.statuses,
        "bytes": sum(part.bytes for part in manifest.parts),
        "seconds": manifest.cost.get("seconds"),
        "created_at": manifest.created_at,
    }


def summaries_table(listed: Iterable[Mapping[str, Any]]) -> Table:
    """Versions, one a line. Times are of their writers' clocks."""
    table = Table("dataset", "version", "tags", "rows", "statuses", "bytes", "seconds", "made (UTC)")
    for entry in listed:
        seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        made = clip(entry["created_at"][:16].replace("T", " "), 16)
        rows = str(entry["rows"]) if entry["kind"] == "rows" else ""
        names = (
            entry["dataset"],
            entry["version"][:12],
            ", ".join(entry["tags"]),
            rows,
            counts_text(entry["statuses"]),
        )
        table.add_row(*names, bytes_text(entry["bytes"]), seconds, made)
    return table


def facts_table(manifest: "Manifest", tags: list[str]) -> Table:
    """Everything a manifest says but its columns and files."""
    table = Table(show_header=False, title=f"{manifest.dataset} {manifest.version}")
    for name, fact in _facts(manifest, tags):
        table.add_row(name, Text(clip(fact, 600)))
    return table


def _facts(manifest: "Manifest", tags: list[str]) -> Iterator[tuple[str, str]]:
    made_by = manifest.derivation
    facts: dict[str, Any] = {
        "tags": ", ".join(tags),
        "made": f"{manifest.created_at} (its writer's clock), commit {manifest.code_commit}",
        "stage": f"{made_by.stage}, code version {made_by.code_version}, seed {made_by.seed}",
        "forced by": made_by.force,
        "content": manifest.content_hash,
        "rows": f"{manifest.rows}: {counts_text(manifest.statuses)}" if manifest.kind == "rows" else None,
        "files": f"{len(manifest.parts)}, {bytes_text(sum(part.bytes for part in manifest.parts))}",
        "generation": manifest.generation or None,
        **{f"input {role}": f"{ref.version}  content {ref.content_hash[:16]}" for role, ref in made_by.inputs.items()},
        **{f"model {role}": content for role, content in made_by.models.items()},
        **{f"cites {role}": cited for role, cited in made_by.cites.items()},
        "constitution": made_by.constitution,
        "config": made_by.config,
        "cost": ", ".join(f"{name} {value:g}" for name, value in sorted(manifest.cost.items())),
        "rows taken": ", ".join(f"{count} from {source}" for source, count in sorted(manifest.sources.items())),
        "recipe": manifest.reuse,
        "metrics": manifest.metrics,
        "libraries": ", ".join(f"{name} {version}" for name, version in sorted(manifest.libraries.items())),
    }
    yield from ((name, fact) for name, fact in facts.items() if fact not in (None, "", {}))


def files_table(manifest: "Manifest") -> Table:
    """The files of a model."""
    table = Table("file", "bytes", "sha256")
    for part in manifest.parts:
        table.add_row(part.path.partition("/")[2], bytes_text(part.bytes), part.sha256)
    return table


def rows_table(manifest: "Manifest", tables: Iterable["pa.Table"], limit: int, width: int) -> Table:
    """Columns down with their types, the first rows across, texts clipped to `width` characters."""
    rows = list(islice((row for table in tables for row in table.slice(0, limit).to_pylist()), limit))
    shown = Table("column", "type", *(f"row {number}" for number in range(1, len(rows) + 1)), show_lines=True)
    for column in manifest.columns:
        values = ["" if row[column.name] is None else clip(row[column.name], width) for row in rows]
        shown.add_row(*map(Text, (clip(column.name, 60), column.type, *values)))
    return shown


def diff_tables(diff: "VersionDiff", width: int) -> list[Table]:
    """How two versions differ: rows, columns of the changed ones, and examples clipped to `width` characters."""
    counts = Table("same", "changed", "added", "removed", title=f"{diff.old.version[:12]} to {diff.new.version[:12]}")
    counts.add_row(*(f"{count:,}" for count in (diff.same, diff.changed, diff.added, diff.removed)))
    columns = Table("column", f"differs in rows, of {diff.num_compared:,} compared")
    for name, count in diff.changed_columns.items():
        columns.add_row(Text(clip(name, 60)), f"{count:,}")
    examples = Table("row_id", "column", "old", "new", title="Examples", show_lines=True)
    for kind, rows in (("", diff.examples), ("added ", diff.added_examples), ("removed ", diff.removed_examples)):
        for row in rows:
            for number, (name, texts) in enumerate(sorted(row.columns.items())):
                shown = ["" if text is None else clip(text, width) for text in texts]
                row_id = f"{kind}{row.row_id}" if number == 0 else ""
                examples.add_row(*map(Text, (clip(row_id, 100), clip(name, 60), *shown)))
    return [counts, *(table for table in (columns, examples) if table.row_count)]


def checks_table(checks: Iterable["VersionCheck"]) -> Table:
    """What `verify` read, one version a line."""
    table = Table("dataset", "version", "rows", "files", "bytes", "chunks", "unlisted", "outcome")
    for check in checks:
        outcome = Text("intact" if check.committed else "in work", "green")
        if not check.intact:
            outcome = Text(f"{len(check.problems)} problem{'s' if len(check.problems) > 1 else ''}", "bold red")
        unlisted = f"{check.orphans} ({bytes_text(check.orphan_bytes)})" if check.orphans else ""
        counts = [str(count or "") for count in (check.rows, check.parts)]
        figures = (*counts, bytes_text(check.bytes), str(check.chunks or ""), unlisted)
        table.add_row(Text(check.dataset), Text(check.version), *figures, outcome)
    return table


def problems_table(checks: Iterable["VersionCheck"]) -> Table:
    """Every problem by its name; the message names the file."""
    table = Table("dataset", "problem", "what is wrong", title="Problems")
    for check in checks:
        for problem in check.problems:
            version = f"{check.dataset} {check.version[:12]}"
            table.add_row(Text(version), Text(problem.error, "bold red"), Text(clip(problem.message, 1000)))
    return table


def findings_table(findings: Iterable["Finding"]) -> Table:
    """What the doctor found."""
    table = Table("check", "outcome", "what was found", "what to do")
    for finding in findings:
        outcome = Text(finding.outcome, _OUTCOME_STYLES[finding.outcome])
        table.add_row(finding.check, outcome, Text(finding.detail), Text(finding.remedy))
    return table
