"""The prompts of a run: red-team and helpfulness prompts to train on, and held-out ones to evaluate on.

*Reads* files or hub datasets. *Writes* `prompts`. A prompt that cannot be parsed stays, with its reason; one that is
also held out is skipped for training, so that no figure is measured on what was trained on.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from tasks.evaluation.names import LOOK_ALIKES, SMALL_TALK
from tasks.readers import ParsedPrompt, read_prompts
from tasks.schema import DatasetRef, Kind, Prompt, Settings, Split
from tasks.stage import Session, Stage, StageFailed
from tasks.store import Store
from tasks.store.identity import content_hash, digest, rows_to_table


class PromptsConfig(Settings):
    """Where prompts come from. Each is a path, `s3://` or `hf://` address; empty means none."""

    red_team: str = ""
    """Prompts meant to elicit harm: lines, a table, or HH transcripts (cut at the last human turn)."""
    red_team_limit: int | None = Field(None, ge=1)
    """Take only the first so many. Empty: all."""
    helpful: str = ""
    """Prompts that only ask for help."""
    helpful_limit: int | None = Field(None, ge=1)
    """Take only the first so many. Empty: all."""
    held_out: str = ""
    """Prompts for evaluation only, with a column `kind`; without a file a share of the others is held out."""
    held_out_limit: int | None = Field(None, ge=1)
    """Take only the first so many. Empty: all."""
    small_talk: str = ""
    """Harmless small talk, held out for evaluation in a group of its own: a policy that apologises for "hey" is not
    harmless but useless (2406.07814). `tasks/evaluation/small_talk.txt` is one such file."""
    look_alikes: str = ""
    """Harmless prompts that look harmful, held out for evaluation in a group of its own: a policy that declines to
    explain how to kill a process judges by words (2308.01263). `tasks/evaluation/look_alikes.txt` is one such file."""
    held_out_fraction: float = Field(0.1, ge=0, lt=1)
    """Share held out, by hash of the prompt, where there is no file of held-out prompts."""


class PromptsStage(Stage):
    """Read, name and split the prompts."""

    stage: ClassVar[str] = "prompts"
    dataset: ClassVar[str] = "prompts"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True

    config: PromptsConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        # the files are outside the store, so their content is the identity and their names are not
        return {
            "config": {},
            "rows": content_hash(digest([i, r.row_id, r.status]) for i, r in enumerate(self.rows())),
        }

    def rows(self) -> list[Prompt]:
        config, rows = self.config, list[Prompt]()
        for kind, uri, limit in self.sources():
            rows += name_prompts(read_prompts(uri, limit=limit), [kind], "train")
        if config.held_out:
            held_out = read_prompts(config.held_out, limit=config.held_out_limit)
            rows += name_prompts(held_out, [p.kind or "red_team" for p in held_out], "held_out")
        else:
            rows = hold_out(rows, config.held_out_fraction)
        for group, uri in self.harmless_groups():
            said = [p.model_copy(update={"group": group}) for p in read_prompts(uri)]
            rows += name_prompts(said, ["helpful"], "held_out", [base_id(r) for r in rows if r.split == "held_out"])
        return separate(rows) if config.held_out or self.harmless_groups() else rows

    def sources(self) -> list[tuple[Kind, str, int | None]]:
        config = self.config
        pairs: list[tuple[Kind, str, int | None]] = [
            ("red_team", config.red_team, config.red_team_limit),
            ("helpful", config.helpful, config.helpful_limit),
        ]
        return [pair for pair in pairs if pair[1]]

    def harmless_groups(self) -> list[tuple[str, str]]:
        """Prompts that nobody should decline, by the group that they are told by."""
        pairs = [(SMALL_TALK, self.config.small_talk), (LOOK_ALIKES, self.config.look_alikes)]
        return [(group, uri) for group, uri in pairs if uri]

    def make(self, session: Session) -> DatasetRef:
        rows = self.rows()
        usable = Counter((row.split, row.kind) for row in rows if row.status == "ok")
        if not usable["train", "red_team"]:
            raise StageFailed(
                f"prompts: no usable red-team prompt in prompts.red_team={self.config.red_team!r} "
                f"({len(rows)} rows read); give a file with at least one prompt"
            )
        metrics = {f"{split}/{kind}": count for (split, kind), count in usable.items()}
        table = rows_to_table(rows, Prompt)
        return session.store.commit_rows(self.derivation(session.store), table, metrics=metrics, cost={})


def name_prompts(
    parsed: Sequence[ParsedPrompt], kinds: Sequence[Kind], split: Split, taken: Sequence[str] = ()
) -> list[Prompt]:
    """Rows with a stable `prompt_id`: the hash of kind and text; a text that comes again gets `-1`, `-2`, ...

    `kinds` has one for all, whatever the file says of itself, or one for each; `taken` are the hashes of texts that
    are there already.
    """
    seen = Counter(taken)
    rows = []
    for position, prompt in enumerate(parsed):
        kind = kinds[position % len(kinds)]
        name = digest([kind, prompt.raw if prompt.status != "ok" else dump(prompt)])[:20]
        prompt_id = f"{name}-{seen[name]}" if seen[name] else name
        seen[name] += 1
        rows.append(
            Prompt(
                row_id=f"{split}/{prompt_id}",
                reuse_key=digest([split, prompt_id, prompt.group, prompt.status]),
                status=prompt.status,
                reason=prompt.reason,
                prompt_id=prompt_id,
                kind=kind,
                messages=prompt.messages,
                source=prompt.source.rpartition(":")[2],  # a file's name must not make another version
                split=split,
                group=prompt.group,
                raw=prompt.raw if prompt.status != "ok" else None,
            )
        )
    return rows


def dump(prompt: ParsedPrompt) -> list[dict[str, str]]:
    return [message.model_dump() for message in prompt.messages]


def base_id(row: Prompt) -> str:
    """The id of the text, whichever time it comes."""
    return row.prompt_id.split("-")[0]


def separate(rows: Sequence[Prompt]) -> list[Prompt]:
    """Skip training prompts whose text is also held out."""
    held_out = {base_id(row) for row in rows if row.split == "held_out"}
    leak = {"status": "skipped", "reason": "the same text is held out for evaluation"}
    return [
        row.model_copy(update=leak) if row.split == "train" and row.status == "ok" and base_id(row) in held_out else row
        for row in rows
    ]


def hold_out(rows: Sequence[Prompt], fraction: float) -> list[Prompt]:
    """Move a share of the prompts to the held-out side, chosen by the hash that names them."""
    threshold = int(fraction * 2**32)
    moved = []
    for row in rows:
        if row.status == "ok" and int(digest(["held_out", base_id(row)])[:8], 16) < threshold:
            row = row.model_copy(update={"split": "held_out", "row_id": f"held_out/{row.prompt_id}"})
        moved.append(row)
    return moved
