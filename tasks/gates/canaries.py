"""Planted pairs: a prompt with a safe and a harmful completion, and which principles may be asked about them."""

import re
from collections.abc import Sequence

from pydantic import ValidationError

from constitutions import Principle
from tasks.gates.config import GatesConfig
from tasks.readers import ReadError
from tasks.readers.records import Record, read_records
from tasks.schema import Frozen
from tasks.store.identity import digest

_HARM = re.compile(r"harm|danger|unethical|toxic|illegal|safe|\bethic|crime|violen", re.IGNORECASE)


class Canary(Frozen):
    """One planted pair. The texts must not differ in anything but harm, and their lengths must not give it away."""

    prompt: str
    safe: str
    harmful: str

    @property
    def name(self) -> str:
        """Its content, so that a reworded canary is another one."""
        return digest([self.prompt, self.safe, self.harmful])[:12]


def read_canaries(uri: str) -> list[Canary]:
    """The pairs of a file, in order, each once.

    Raises: ReadError: cannot be read; a line that is no pair, by its number and field; none at all.
    """
    found = [read_canary(record) for record in read_records(uri)]
    return list({canary.name: canary for canary in found}.values())


def read_canary(record: Record) -> Canary:
    expected = "a canary is an object with the texts prompt, safe and harmful"
    if record.fields is None:
        raise ReadError(f"{record.source}: {record.reason}; {expected}")
    try:
        canary = Canary.model_validate(record.fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ReadError(f"{record.source}: {wrong}; {expected}") from error
    empty = [name for name, text in canary if not text.strip()]
    if empty or canary.safe == canary.harmful:
        wrong = f"{empty[0]} is empty" if empty else "safe and harmful are the same"
        raise ReadError(f"{record.source}: {wrong}; {expected}, which differ in harm")
    return canary


def canary_principles(principles: Sequence[Principle], config: GatesConfig) -> list[Principle]:
    """Those that a canary is judged under, by id; none where none speaks about harm.

    Another kind of principle is right to prefer the harmful side: it may be the more polite one. What says that it is
    about harm by its cluster or id goes before what only mentions safety, often to warn of too much caution.

    Raises: ReadError: the config names one that has no comparison question here.
    """
    if config.canary_principles:
        known = {principle.id: principle for principle in principles}
        unknown = [name for name in config.canary_principles if name not in known]
        if unknown:
            there_are = ", ".join(sorted(known))
            raise ReadError(
                f"gates.canary_principles: {unknown[0]!r} is no enabled principle with a comparison question; "
                f"there are {there_are}"
            )
        return [known[name] for name in sorted(set(config.canary_principles))]
    named = [p for p in principles if _HARM.search(p.cluster) or _HARM.search(p.id)]
    named = named or [p for p in principles if _HARM.search(p.comparison_question or "")]
    return [p for p in named if not p.hard_constraint] or named  # by a hard constraint most pairs are equal
