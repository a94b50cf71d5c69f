"""Is what is stored still what was committed? Every byte and every row of a version is read again.

Reading a version checks the parts it touches and stops at the first fault; this looks at all of them and reports
what it finds. Memory is bounded by one part and the rows of one row group.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from pydantic import Field

from tasks.schema import Frozen
from tasks.store import keys
from tasks.store.backend import Entry
from tasks.store.errors import (
    Corrupt,
    ManifestEdited,
    NotCommitted,
    PartDamaged,
    PartMissing,
    PartTruncated,
    RowsDiffer,
    StoreError,
    StoreUnavailable,
)
from tasks.store.fates import standing
from tasks.store.manifest import Manifest, Part
from tasks.store.models import checked_blocks
from tasks.store.parts import decode_chunk, read_part
from tasks.store.recount import Sums
from tasks.store.store import Store

Progress = Callable[[str, int, int], None]
"""Called with what is being read, bytes read so far and bytes in all."""

_VERSION_FILE = re.compile(r"([a-z0-9][a-z0-9_-]*)(\.[0-9]+)?\.json")


class Problem(Frozen):
    """One thing that is not as it was committed."""

    error: str
    """Name of the error that a reader would meet: `PartDamaged`, `ManifestEdited`, ..."""
    where: str
    """Path or `s3://` address of the file."""
    message: str


class VersionCheck(Frozen):
    """What checking one version found."""

    dataset: str
    version: str
    problems: tuple[Problem, ...] = ()
    committed: bool = True
    """False: a version in work, of which only the chunks were read."""
    rows: int = 0
    """Rows read and hashed; 0 for a model."""
    parts: int = 0
    """Files that the manifest lists."""
    bytes: int = 0
    """Bytes of these files, as read."""
    chunks: int = 0
    """Resume points kept beside it."""
    orphans: int = 0
    """Files in its data folder that the manifest does not list: of killed, losing or running attempts."""
    orphan_bytes: int = Field(0, ge=0)

    @property
    def intact(self) -> bool:
        return not self.problems


def no_progress(what: str, done: int, total: int) -> None:
    """Shows nothing."""


def verify_version(store: Store, dataset: str, version: str, progress: Progress = no_progress) -> VersionCheck:
    """Check one version: its manifest, the size, sha256 and rows of each part, the content hash, its chunks.

    Where the manifest cannot be believed, what it lists is not read.

    Raises: NotCommitted: there is neither such a version nor a chunk of it, or gc removed it meanwhile.
    StoreUnavailable: the place is not to be reached.
    """
    check = _Check(store, dataset, version, progress)
    manifest = check.read_manifest()
    if manifest:
        check.check_parts(manifest)
        if check.problems and standing(store.backend, dataset, version).generation != manifest.generation:
            raise NotCommitted(f"store {store.uri}: {dataset} {version} was removed by gc while it was read")
    check.check_chunks()
    if not manifest and not check.problems and not check.chunks:
        raise NotCommitted(f"store {store.uri}: {dataset} has no version {version}, and no chunk of one")
    return check.result(committed=manifest is not None)


def verify_store(
    store: Store, datasets: Iterable[str] | None = None, progress: Progress = no_progress
) -> Iterator[VersionCheck]:
    """Check every version of these datasets (None: of all), and the chunks of versions in work.

    A version that gc removes meanwhile is passed over. Raises: StoreUnavailable.
    """
    for dataset in keys.dataset_names(store.backend) if datasets is None else datasets:
        for version in _versions(store, dataset):
            try:
                yield verify_version(store, dataset, version, progress)
            except NotCommitted:
                continue


def _versions(store: Store, dataset: str) -> list[str]:
    """Versions by their keys alone: an edited manifest must not hide the others."""
    listed = store.backend.keys(keys.folder(dataset, "versions"))
    matches = (_VERSION_FILE.fullmatch(key.rpartition("/")[2]) for key in listed)
    in_work = store.backend.folders(keys.folder(dataset, "chunks"))
    return sorted({match[1] for match in matches if match} | set(in_work))


class _Check:
    """The state of checking one version."""

    def __init__(self, store: Store, dataset: str, version: str, progress: Progress) -> None:
        self.store, self.dataset, self.version, self.progress = store, dataset, version, progress
        self.data = keys.data_key(dataset, version)
        self.problems: list[Problem] = []
        self.rows = self.parts = self.bytes = self.chunks = 0
        self.orphans: list[int] = []

    def note(self, error: StoreError, key: str) -> None:
        where = self.store.backend.location(key)
        self.problems.append(Problem(error=type(error).__name__, where=where, message=str(error)))

    def result(self, committed: bool) -> VersionCheck:
        return VersionCheck(
            dataset=self.dataset,
            version=self.version,
            problems=tuple(self.problems),
            committed=committed,
            rows=self.rows,
            parts=self.parts,
            bytes=self.bytes,
            chunks=self.chunks,
            orphans=len(self.orphans),
            orphan_bytes=sum(self.orphans),
        )

    def read_manifest(self) -> Manifest | None:
        """The live manifest; None where there is none, or where it is not to be believed (a problem is noted)."""
        try:
            manifest = self.store.find(self.dataset, self.version)
        except Corrupt as error:
            generation = standing(self.store.backend, self.dataset, self.version).generation
            self.note(error, keys.manifest_key(self.dataset, self.version, generation))
            return None
        if manifest and manifest.derivation.version != self.version:
            key = keys.manifest_key(self.dataset, self.version, manifest.generation)
            message = f"its derivation is that of version {manifest.derivation.version}, not of {self.version}"
            self.note(ManifestEdited(f"{self.store.backend.location(key)}: {message}"), key)
        return manifest

    def check_parts(self, manifest: Manifest) -> None:
        """Every part, then what they hold together, if each of them is whole."""
        stored = {entry.key: entry for entry in self.store.backend.entries(f"{self.data}/")}
        listed = {f"{self.data}/{part.path}": part for part in manifest.parts}
        self.orphans = [entry.size for key, entry in stored.items() if key not in listed]
        total, self.parts, before = sum(part.bytes for part in manifest.parts), len(listed), len(self.problems)
        sums = Sums()
        for key, part in listed.items():
            self.progress(f"{self.dataset} {self.version[:12]}", self.bytes, total)
            try:
                self.check_part(key, part, stored.get(key), sums)
            except (Corrupt, StoreUnavailable) as error:  # one unreadable file must not hide the others
                self.note(error, key)
        self.progress(f"{self.dataset} {self.version[:12]}", self.bytes, total)
        if len(self.problems) == before:
            for message in sums.differences(manifest):
                self.note(RowsDiffer(f"{self.store.backend.location(self.data)}: {message}"), self.data)

    def check_part(self, key: str, part: Part, stored: Entry | None, sums: Sums) -> None:
        _check_size(self.store.backend.location(key), part, stored)
        if part.rows is None:
            for _ in checked_blocks(self.store.backend, key, part):
                pass
            sums.files[part.path.partition("/")[2]] = part.sha256
        else:
            for table in read_part(self.store.backend, key, part):
                self.rows += table.num_rows
                for message in sums.add(table):
                    self.note(RowsDiffer(f"{self.store.backend.location(key)}: {message}"), key)
        self.bytes += part.bytes

    def check_chunks(self) -> None:
        """Chunks carry their own digest. A damaged one stops the run that would resume from it."""
        for key in self.store.backend.keys(f"{keys.folder(self.dataset, 'chunks')}{self.version}/"):
            try:
                decode_chunk(self.store.backend.get(key), self.store.backend.location(key))
            except FileNotFoundError:  # gc took it: the version was committed meanwhile
                continue
            except (Corrupt, StoreUnavailable) as error:
                self.note(error, key)
            self.chunks += 1


def _check_size(where: str, part: Part, stored: Entry | None) -> None:
    """The listing's word, before anything is transferred. Raises: PartMissing. PartTruncated. PartDamaged."""
    if stored is None:
        raise PartMissing(f"{where}: the part is missing though the manifest lists it")
    if stored.size < part.bytes:
        raise PartTruncated(f"{where}: {stored.size} bytes, the manifest says {part.bytes}")
    if stored.size > part.bytes:
        raise PartDamaged(f"{where}: {stored.size} bytes, the manifest says {part.bytes}")
