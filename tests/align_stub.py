"""A flow that stands for `align` where only its being started counts: it makes nothing, and ends as files say."""

from pathlib import Path

from prefect import State, flow
from prefect.states import Cancelled, Completed

from flows.config import AlignConfig


@flow(name="align")
def align(config: AlignConfig) -> State:
    """Fails where `fail` lies beside the store, and is cancelled where `cancel` does."""
    folder = Path(config.run.store).parent
    if (folder / "fail").exists():
        raise RuntimeError("told to fail")
    return Cancelled() if (folder / "cancel").exists() else Completed()
