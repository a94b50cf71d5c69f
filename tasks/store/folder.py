"""A local folder as a store: temporary file, fsync, then a hard link where nothing may be there already.

Not fsspec's local file system: its exclusive create is visible before it is whole.
"""

import errno
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.store.backend import BLOCK_BYTES, TEMPORARY, Entry
from tasks.store.errors import StoreUnavailable

_KEPT_LEVELS = 2
"""Folders no deeper than this (`v1/pins`) stay when they become empty: others are about to write there."""
_REMEDIES = {
    errno.EACCES: "choose a folder that this user may write",
    errno.EPERM: "choose a folder on a file system with hard links that this user may write",
    errno.ENOTSUP: "choose a folder on a file system with hard links",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "the disk is full; free space or choose another folder",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "a file has that name; choose another folder",
}


class FolderBackend:
    """Keys are files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    @classmethod
    def open(cls, path: str) -> "FolderBackend":
        """Make the folder if need be, and prove that it can be written and linked in.

        Raises: StoreUnavailable: names the folder, the operation and the remedy.
        """
        backend = cls(Path(path).expanduser().absolute())
        with backend._explained("open it for writing"):
            _make_folder(backend.root)
        probe = f"{TEMPORARY}probe-{uuid.uuid4().hex}"
        backend.put_if_absent(probe, b"")
        (backend.root / probe).unlink()
        return backend

    def get(self, key: str) -> bytes:
        with self._explained(f"read {key}", FileNotFoundError):
            return (self.root / key).read_bytes()

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        with self._explained(f"read {key}", FileNotFoundError), (self.root / key).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._explained(f"read {key}", FileNotFoundError), (self.root / key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def put(self, key: str, blocks: Iterable[bytes]) -> None:
        with self._explained(f"write {key}"), self._temporary(blocks) as temporary:
            _in_folder(self.root / key, temporary, temporary.replace)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._explained(f"create {key}"), self._temporary([data]) as temporary:
            try:
                _in_folder(self.root / key, temporary, lambda target: os.link(temporary, target))
            except FileExistsError:
                return _read_if_there(self.root / key) == data
            return True

    def keys(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        with self._explained(f"list {prefix}"):
            return sorted(self._walk(self.root / prefix))

    def delete(self, key: str) -> None:
        with self._explained(f"delete {key}"):
            (self.root / key).unlink(missing_ok=True)
            for folder in list(Path(key).parents)[: -1 - _KEPT_LEVELS]:
                try:
                    (self.root / folder).rmdir()
                except OSError:  # it holds other keys, or another process removed it
                    return

    def now(self) -> float:
        with self._explained("read the clock"), self._temporary([b""]) as probe:
            return probe.stat().st_mtime

    def folders(self, prefix: str) -> list[str]:
        folder = self.root / prefix
        with self._explained(f"list {prefix}"):
            return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def location(self, key: str) -> str:
        return str(self.root / key)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        """Files below a folder. What is deleted meanwhile is left out; what cannot be read is an error."""
        with suppress(FileNotFoundError), os.scandir(folder) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    yield from self._walk(Path(item.path))
                    continue
                with suppress(FileNotFoundError):
                    stat = item.stat()
                    key = Path(item.path).relative_to(self.root).as_posix()
                    yield Entry(key, stat.st_size, stat.st_mtime)

    @contextmanager
    def _temporary(self, blocks: Iterable[bytes]) -> Iterator[Path]:
        """A file with these bytes, on disk, outside every listing; gone afterwards unless it was moved."""
        folder = self.root / TEMPORARY
        _make_folder(folder)
        path = folder / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                file.writelines(blocks)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, operation: str, *let_through: type[OSError]) -> Iterator[None]:
        try:
            yield
        except let_through:
            raise
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0, "see the error, mend it and run again")
            raise StoreUnavailable(
                f"store {self.uri}: cannot {operation}: {error.strerror or error}; {remedy}"
            ) from error


def _in_folder(target: Path, temporary: Path, place: Callable[[Path], object]) -> None:
    """Put a file at its place, in a folder that is made if need be: again where a delete empties it meanwhile."""
    for _ in range(100):
        try:
            _make_folder(target.parent)
            place(target)
        except FileNotFoundError:
            if not temporary.exists():
                raise FileNotFoundError(errno.ENOENT, "its temporary file was removed before it was done") from None
            continue
        with suppress(FileNotFoundError):  # it may be deleted again at once
            _sync_folder(target.parent)
        return
    raise FileNotFoundError(errno.ENOENT, "the folder is removed again and again", str(target.parent))


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _make_folder(folder: Path) -> None:
    """`mkdir -p` whose every new entry survives a power cut."""
    if folder.is_dir():
        return
    if folder != folder.parent:
        _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut: the entry lives in the folder, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
