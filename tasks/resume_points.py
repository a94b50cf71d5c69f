"""The resume points of a training that runs: kept on this machine, and in the store for another one to go on from."""

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.store import Corrupt, Derivation, Store, StoreError

logger = logging.getLogger(__name__)


class NewestWins:
    """Works in a thread of its own on the newest thing it was given; what waits is replaced by what is newer.

    Leaving `with` waits until the last thing is done.
    """

    def __init__(self, work: Callable[[Path], None]) -> None:
        self._work = work
        self._waiting: Path | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="resume points", daemon=True)

    def give(self, folder: Path) -> Path | None:
        """Take this one next; returns the one that it replaces, which nobody will work on."""
        with self._changed:
            replaced, self._waiting = self._waiting, folder
            self._changed.notify()
        return replaced

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (folder := self._next()) is not None:
            self._work(folder)

    def _next(self) -> Path | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._waiting is not None)
            folder, self._waiting = self._waiting, None
            return folder


class ResumePoints:
    """The resume points of one version in the making. In `with`, those that are given are copied to the store."""

    def __init__(self, store: Store, derivation: Derivation, folder: Path, aside: Path) -> None:
        self.folder = folder
        """Where the trainer keeps its own."""
        self._store, self._name = store, (derivation.dataset, derivation.version)
        self._aside = aside
        self._uploads = NewestWins(self._upload)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._bring_newest()
        self._uploads.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uploads.__exit__(kind, error, trace)

    def keep(self, point: Path) -> None:
        """Copy a whole resume point to the store in the background.

        It is linked aside first, since the trainer removes it once there are newer ones.
        """
        aside = self._aside / point.name
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(point, aside, copy_function=os.link)
        except OSError as error:
            logger.warning("%s was not copied to the store (%s); a newer one will be", point, error)
            return
        replaced = self._uploads.give(aside)
        if replaced:
            shutil.rmtree(replaced)

    def drop(self) -> None:
        """Remove those in the store: they have served."""
        try:
            self._store.checkpoint_drop(*self._name)
        except StoreError as error:
            logger.warning("resume points of %s %s stay until gc removes them: %s", *self._name, error)

    def _upload(self, folder: Path) -> None:
        try:
            self._store.checkpoint_put(*self._name, folder.name, folder)
        except (StoreError, OSError) as error:
            logger.warning(
                "resume point %s of %s was not copied to the store, the training goes on: until a later one is, only "
                "this machine can resume from it (%s)",
                folder.name,
                self._name[0],
                error,
            )
        shutil.rmtree(folder, ignore_errors=True)

    def _bring_newest(self) -> None:
        """The store's newest whole one, if this machine has none that is as new."""
        here = max((path.name for path in self.folder.glob("step-*")), default="")
        for name in reversed(self._store.checkpoint_names(*self._name)):
            if name <= here:
                return
            try:
                self._store.checkpoint_fetch(*self._name, name, self.folder / name)
            except Corrupt as error:
                logger.warning("resume point %s is damaged in the store, trying the one before: %s", name, error)
            else:
                logger.info("goes on from resume point %s of the store", name)
                return
