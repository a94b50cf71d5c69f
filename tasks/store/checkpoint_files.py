"""Resume points of a training beside the version that it makes, so that another machine can go on.

    v1/datasets/<dataset>/checkpoints/<version>/<name>/<file>
    v1/datasets/<dataset>/checkpoints/<version>/<name>/complete.json    written last: every file with size and sha256

Nothing derives from them. Names sort by age. Two writers of one name can spoil it; a reader then sees that it is
damaged and takes the one before.
"""

import shutil
import uuid
from pathlib import Path

from tasks.schema import Frozen
from tasks.store import keys
from tasks.store.backend import Backend
from tasks.store.errors import Corrupt, NotCommitted, StoreError
from tasks.store.identity import canonical_json, check_file_path, check_name
from tasks.store.manifest import Part
from tasks.store.models import fetch_files, model_files, read_blocks
from tasks.store.parts import put_files

KEPT = 2  # the newest, and the one before in case the newest is damaged
COMPLETE = keys.CHECKPOINT_COMPLETE


class Complete(Frozen):
    """What a complete resume point consists of."""

    files: tuple[Part, ...]


class CheckpointFiles:
    """Resume points of one place."""

    backend: Backend
    uri: str

    def checkpoint_put(self, dataset: str, version: str, name: str, folder: Path) -> None:
        """Keep every file below `folder` as a resume point, and of those before it only the newest.

        Raises: StoreError: a file that no model may have either (a pickle). StoreUnavailable.
        """
        base = _base(dataset, version, name)
        files = model_files(folder)
        if COMPLETE in files:
            raise StoreError(f"checkpoint {folder}: it has a file {COMPLETE}, expected none: the store writes it")
        self.backend.delete(f"{base}{COMPLETE}")  # first: else an old list would stand over new files
        sources = ((file, read_blocks(path), None) for file, path in files.items())
        parts = put_files(self.backend, _versions_base(dataset, version).rstrip("/"), name, sources)
        self.backend.put(f"{base}{COMPLETE}", [canonical_json(Complete(files=parts).model_dump())])
        kept = self.checkpoint_names(dataset, version)[-KEPT:]
        for other in self.backend.folders(_versions_base(dataset, version)):
            if other not in kept and other < kept[-1]:
                self._drop(_base(dataset, version, other))

    def checkpoint_names(self, dataset: str, version: str) -> list[str]:
        """The complete resume points, oldest first."""
        found = self.backend.keys(_versions_base(dataset, version))
        return sorted(key.split("/")[-2] for key in found if key.endswith(f"/{COMPLETE}"))

    def checkpoint_newest(self, dataset: str, version: str) -> str | None:
        """The newest complete resume point, or None."""
        names = self.checkpoint_names(dataset, version)
        return names[-1] if names else None

    def checkpoint_fetch(self, dataset: str, version: str, name: str, folder: Path) -> Path:
        """Bring a resume point to `folder`, which gets its name only once every file is verified.

        Raises: NotCommitted: there is no complete one. Corrupt: names the file. StoreUnavailable.
        """
        base = _versions_base(dataset, version)
        parts = self._complete(base, name)
        temporary = folder.with_name(f".fetched-{uuid.uuid4().hex}")
        try:
            fetch_files(self.backend, base.rstrip("/"), parts, temporary).replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def checkpoint_drop(self, dataset: str, version: str) -> None:
        """Remove every resume point of a version, whole or not."""
        for name in self.backend.folders(_versions_base(dataset, version)):
            self._drop(_base(dataset, version, name))

    def _complete(self, base: str, name: str) -> tuple[Part, ...]:
        key = f"{base}{check_name(name, 'checkpoint')}/{COMPLETE}"
        where, data = self.backend.location(key), keys.get_or_none(self.backend, key)
        if data is None:
            raise NotCommitted(f"{where}: there is no complete resume point {name!r}")
        try:
            parts = Complete.model_validate_json(data).files
            outside = [part.path for part in parts if not check_file_path(part.path).startswith(f"{name}/")]
        except ValueError as error:
            raise Corrupt(f"{where}: not a list of files ({error})") from None
        if outside or not parts:
            raise Corrupt(f"{where}: it lists {outside or 'no files'}, expected files of {name}")
        return parts

    def _drop(self, base: str) -> None:
        self.backend.delete(f"{base}{COMPLETE}")  # first, so that nobody takes half of one for whole
        for key in self.backend.keys(base):
            self.backend.delete(key)


def _versions_base(dataset: str, version: str) -> str:
    return f"{keys.folder(dataset, 'checkpoints')}{keys.check_version(version)}/"


def _base(dataset: str, version: str, name: str) -> str:
    return f"{_versions_base(dataset, version)}{check_name(name, 'checkpoint')}/"
