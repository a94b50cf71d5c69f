"""What can go wrong with the store, by name. All are `ValueError`s: their message is for the user."""


class StoreError(ValueError):
    """The store cannot do what was asked; the message names the place, the operation and the remedy."""


class NotCommitted(StoreError):
    """The version, file or side file that was asked for does not exist."""


class Corrupt(StoreError):
    """What was read is not what was written: a digest, a row count or a manifest does not fit."""


class PartMissing(Corrupt):
    """A manifest lists a part or file that is not there."""


class PartTruncated(Corrupt):
    """A part or file has fewer bytes than its manifest says."""


class PartDamaged(Corrupt):
    """A part or file has other bytes, or other rows, than its manifest says."""


class PartOutside(Corrupt):
    """A manifest lists a part outside its version's data directory, or one of another version."""


class ManifestEdited(Corrupt):
    """A manifest is not as it was written: its own digest, its shape or its key does not fit."""


class RowsDiffer(Corrupt):
    """Rows or files are whole, but together not the content that the manifest's content hash names."""


class InvalidName(StoreError):
    """A dataset, version, chunk or file name that could mean another place; refused before any request."""


class TagMoved(StoreError):
    """Somebody else moved the tag meanwhile; nothing was written."""


class StoreUnavailable(StoreError):
    """The folder or the object server refused, failed or did not answer. Nothing was published."""

    def __init__(self, message: str, status: int | None = None, is_transient: bool = False) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of an object server's answer; None where there was no answer."""
        self.is_transient = is_transient
        """Whether the same request may succeed in a while: no answer, or one that says so."""


class ConditionIgnored(StoreError):
    """The object server overwrites what `If-None-Match: *` should protect: two writers would both believe they won."""

    WHAT = "the server ignores If-None-Match, so two writers would overwrite each other"
    REMEDY = "use one that honours it (AWS, Ceph without bucket versioning) or a local folder"

    def __init__(self, uri: str) -> None:
        super().__init__(f"store {uri}: {self.WHAT}; {self.REMEDY}")
