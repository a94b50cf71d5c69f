"""What names a thing: canonical JSON, digests, row and content hashes, checked names, explicit Arrow schemas.

Everything here is a pure function of its arguments, the same on every machine and under every PYTHONHASHSEED.
"""

import hashlib
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from tasks.schema import Row
from tasks.store.errors import InvalidName, StoreError

RowT = TypeVar("RowT", bound=Row)

ROW_NAMES = ("row_id", "reuse_key", "row_hash")
"""The three names of a row (design idea 3); all other columns are its content."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_FILE_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_BATCH_ROWS = 4096
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical_json(value: Any) -> bytes:
    """The one serialisation of a JSON value: keys sorted, no spaces, ASCII.

    Raises: TypeError: a value without a stable form (NaN, Path, set, object), named by its path.
    """
    _check_stable(value, "")
    return _dump(value)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _dump(value: Any) -> bytes:
    return _encode(value).encode()


def _check_stable(value: Any, path: str) -> None:
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path or 'value'}: key {key!r} is {type(key).__name__}, expected a string")
            _check_stable(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_stable(item, f"{path}[{index}]")
    else:
        raise TypeError(
            f"{path or 'value'}: {value!r:.80} ({type(value).__name__}) has no stable form; "
            "expected None, bool, int, finite float, str, or a list or dict of them"
        )


def row_hash(row: Mapping[str, Any]) -> str:
    """Hash of a row's content, 64 hex digits: every column but its three names, whatever their order.

    Raises: TypeError: names the column that has no stable form.
    """
    content = {name: value for name, value in row.items() if name not in ROW_NAMES}
    try:
        data = _dump(content)
    except (TypeError, ValueError):
        data = canonical_json(content)  # slower, and names the value
    return hashlib.sha256(data).hexdigest()


def content_hash(digests: Iterable[str]) -> str:
    """Hash of a set with repetitions, in no order: the sum of its members' digests modulo 2**256.

    A sum, not XOR, under which two equal members would cancel.
    """
    return f"{sum(int(member, 16) for member in digests) % 2**256:064x}"


def hash_rows(rows: pa.Table) -> tuple[pa.Table, str]:
    """The table with `row_hash` filled, and its content hash over (row_id, row_hash).

    `row_id` belongs to the content: what is made of a row may cite it.

    Raises: StoreError: a column is missing, a `row_id` is null or comes twice, or a value has no stable form.
    """
    _check_row_ids(rows)
    total, columns = 0, []
    for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
        hashes = row_hashes(batch)
        members = map("%s\0%s".__mod__, zip(batch.column("row_id").to_pylist(), hashes, strict=True))
        total += sum(int.from_bytes(hashlib.sha256(member.encode()).digest()) for member in members)
        columns.append(pa.array(hashes, pa.string()))
    column, content = pa.chunked_array(columns, pa.string()), f"{total % 2**256:064x}"
    if "row_hash" not in rows.column_names:
        return rows.append_column("row_hash", column), content
    return rows.set_column(rows.column_names.index("row_hash"), "row_hash", column), content


def row_hashes(rows: pa.RecordBatch | pa.Table) -> list[str]:
    """`row_hash` of each row, in order; several times as fast as one dict after the other.

    Raises: StoreError: names the row and the column that has no stable form.
    """
    try:
        return [hashlib.sha256(text.encode()).hexdigest() for text in _row_texts(rows)]
    except (TypeError, ValueError):
        return [_named_row_hash(row) for row in rows.to_pylist()]  # slower, and names the value


def _row_texts(rows: pa.RecordBatch | pa.Table) -> Iterator[str]:
    """The canonical JSON of each row's content, put together from its columns."""
    names = sorted(name for name in rows.schema.names if name not in ROW_NAMES)
    template = "{" + ",".join(f"{encode_basestring_ascii(name)}:".replace("%", "%%") + "%s" for name in names) + "}"
    return map(template.__mod__, zip(*(_value_texts(rows.column(name)) for name in names), strict=True))


def _value_texts(column: pa.Array | pa.ChunkedArray) -> Iterator[str]:
    """The canonical JSON of each value. Raises: ValueError, TypeError: one has no stable form."""
    encode: Callable[[Any], str] = _encode
    if pa.types.is_string(column.type):
        encode = encode_basestring_ascii
    elif pa.types.is_integer(column.type):
        encode = int.__repr__
    elif pa.types.is_float64(column.type) and pc.all(pc.is_finite(column), min_count=0).as_py():
        encode = float.__repr__
    return ("null" if value is None else encode(value) for value in column.to_pylist())


def _named_row_hash(row: Mapping[str, Any]) -> str:
    try:
        return row_hash(row)
    except TypeError as error:
        raise StoreError(f"row {row['row_id']!r}: {error}") from None


def _check_row_ids(rows: pa.Table) -> None:
    missing = [name for name in ("row_id", "reuse_key", "status") if name not in rows.column_names]
    if missing:
        raise StoreError(f"rows lack the columns {missing}; they have {rows.column_names}")
    ids = rows.column("row_id")
    if ids.null_count:
        raise StoreError(f"{ids.null_count} of {len(ids)} rows have no row_id; every row needs one")
    counts = ids.value_counts()
    if len(counts) < len(ids):
        worst = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise StoreError(f"row_id {worst['values']!r} comes {worst['counts']} times; it must name one row")


def check_name(name: str, what: str = "name") -> str:
    """The name itself, if it is safe as one segment of a key on every backend.

    Raises: InvalidName.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise InvalidName(
            f"{what} {name!r:.90}: expected 1 to 63 characters of a-z 0-9 . _ -, "
            "the first a letter or digit, and no '..'"
        )
    return name


def check_dataset(name: str) -> str:
    """The name itself, if it names a dataset: one segment, or `models/` and one segment.

    Raises: InvalidName.
    """
    head, slash, tail = name.partition("/") if isinstance(name, str) else (name, "", "")
    if slash and head == "models":
        check_name(tail, f"dataset {name!r:.90}, part")
        return name
    if name == "models":
        raise InvalidName("dataset 'models': expected models/<name>")
    return check_name(name, "dataset")


def check_file_path(path: str) -> str:
    """The path itself, if it is a relative file path of plain segments that cannot leave its folder.

    Raises: InvalidName.
    """
    if any(not _FILE_SEGMENT.fullmatch(part) or ".." in part for part in path.split("/")):
        raise InvalidName(f"file {path!r:.140}: expected segments of A-Z a-z 0-9 . _ - that do not begin with a dot")
    return path


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """The explicit schema of a row model, so that empty tables and null columns keep their types.

    Raises: TypeError: a field whose type has no column type here.
    """
    return pa.schema([(name, _arrow_type(f.annotation, name)) for name, f in model.model_fields.items()])


def _arrow_type(annotation: Any, where: str) -> pa.DataType:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal and len({type(value) for value in arguments}) == 1:
        return _arrow_type(type(arguments[0]), where)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not types.NoneType]
        if len(inner) == 1:
            return _arrow_type(inner[0], where)
    if origin is list:
        return pa.list_(_arrow_type(arguments[0], f"{where}[]"))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(list(arrow_schema(annotation)))
    raise TypeError(f"{where}: {annotation!r} has no column type; expected str, int, float, bool, lists, models")


def rows_to_table(rows: Sequence[Row], model: type[Row]) -> pa.Table:
    """Rows as a table with the model's schema, in order.

    Raises: StoreError: a row of another model, or text that is not Unicode (a lone surrogate).
    """
    for row in rows:
        if type(row) is not model:
            raise StoreError(f"row {row.row_id!r} is a {type(row).__name__}, expected {model.__name__}")
    try:
        return pa.Table.from_pylist([row.model_dump() for row in rows], schema=arrow_schema(model))
    except UnicodeEncodeError:
        raise StoreError(f"row {_not_unicode(rows)!r} holds a lone surrogate, which no file can keep") from None


def _not_unicode(rows: Sequence[Row]) -> str | None:
    for row in rows:
        try:
            json.dumps(row.model_dump(), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return row.row_id
    return None


def table_to_rows(table: pa.Table, model: type[RowT]) -> list[RowT]:
    """A table's rows as validated models, in order.

    Raises: pydantic.ValidationError: a column is missing, unknown or of another type.
    """
    return [model.model_validate(row) for row in table.to_pylist()]
