"""Looks for words in files, databases and stores, also packed: a leak hides well in a parquet file."""

import base64
import gzip
import io
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

from tasks.store import Store

Content = tuple[str, bytes]
"""The name of a place and what it holds."""


def found_in(contents: Iterable[Content], words: Iterable[str]) -> dict[str, set[str]]:
    """Word -> names of the places that hold it, as it is or encoded; a word that is nowhere is left out."""
    wanted = {form: word for word in words for form in forms(word)}
    found: dict[str, set[str]] = {}
    for name, data in contents:
        for readable in unpacked(data):
            for form, word in wanted.items():
                if form in readable:
                    found.setdefault(word, set()).add(name)
    return found


def forms(word: str) -> list[bytes]:
    """How a word may be written: as it is, in hexadecimal, and inside base64 at each of its three offsets."""
    plain = word.encode()
    inner = [
        base64.b64encode(b"\0" * offset + plain)[(offset * 8 + 5) // 6 : (offset + len(plain)) * 8 // 6]
        for offset in range(3)
    ]
    return [plain, plain.hex().encode(), *inner]


def unpacked(data: bytes) -> Iterator[bytes]:
    """The bytes without line breaks, which split base64; and what is packed in them."""
    yield data.replace(b"\n", b"")
    if data[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(data))
    if data[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(data))
        yield repr([table.schema.metadata, table.to_pylist()]).encode()


def is_pickle(data: bytes) -> bool:
    """Whether it begins as a pickle of protocol 2 to 5, or as one in base64, which is how Prefect writes results."""
    return data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or data[:4] in (b"gASV", b"gAWV")


def files(*folders: Path) -> Iterator[Content]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()


def rows_of_database(path: Path) -> Iterator[Content]:
    """Every table of an SQLite file. In the file itself a long text is cut where a page ends."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = database.execute(f'SELECT * FROM "{table}"').fetchall()
            yield f"table {table}", b"\0".join(str(cell).encode() for row in rows for cell in row)


def objects(store: Store) -> Iterator[Content]:
    """Every object of a store, keys and all."""
    for key in store.backend.keys(""):
        yield key, key.encode() + b"\0" + store.backend.get(key)
        yield key, store.backend.get(key)
