"""What a constitution says about its principles: clusters with a title, and the prose that principles came from."""

from pydantic import Field

from constitutions.base import Frozen, Identifier, Text


class Cluster(Frozen):
    """A theme of several principles. No draw uses it: reports, `show` and lint group by it."""

    id: Text
    """As principles name it in `cluster`."""
    title: Text | None = None
    description: Text | None = None


class Section(Frozen):
    """Prose from which principles were derived; recorded for lineage and lint, used by no draw and in no prompt."""

    id: Identifier
    title: Text | None = None
    text: Text
    principles: tuple[Identifier, ...] = Field(default=(), strict=False)
    """Ids of the principles derived from it."""
    source: Text | None = None
    """Where the text comes from."""
