"""What can go wrong with the store, by name. All are `ValueError`s: their message is for the user."""


class StoreError(ValueError):
    """The store cannot do what was asked; the message names the place, the operation and the remedy."""


class NotCommitted(StoreError):
    """The version, file or side file that was asked for does not exist."""


class Corrupt(StoreError):
    """What was read is not what was written: a digest, a row count or a manifest does not fit."""


class InvalidName(StoreError):
    """A dataset, version, chunk or file name that could mean another place; refused before any request."""


class StoreUnavailable(StoreError):
    """The folder or the object server refused, failed or did not answer. Nothing was published."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of an object server's answer; None where there was no answer."""
