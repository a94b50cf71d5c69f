"""Names that could mean another place are refused before any request, by everything in the store that takes a name.

The methods are found by inspection: one that is new, and does not check its names, fails here.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.schema import DatasetRef, ModelRef
from tasks.store import Derivation, InvalidName, Store, StoreError
from tasks.store.claims import claim
from tasks.store.diff import diff_versions
from tasks.store.identity import check_dataset, check_file_path, check_name
from tasks.store.manifest import Part, new_manifest
from tasks.store.reuse import ReuseIndex
from tasks.store.verify import verify_store, verify_version

HOSTILE = {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "up": "../x",
    "up at the end": "a/..",
    "dots inside": "a..b",
    "slash": "/",
    "root": "/etc/passwd",
    "folders": "a/b/c",
    "trailing slash": "a/",
    "double slash": "a//b",
    "escaped dot": "%2e",
    "escaped dots": "%2e%2e%2f",
    "escaped slash": "a%2Fb",
    "nul": "a\0b",
    "nul alone": "\0",
    "version query": "x?versionId=abc",
    "fragment": "x#y",
    "fullwidth dots": "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}",
    "two dot leader": "\N{TWO DOT LEADER}",
    "fullwidth slash": "a\N{FULLWIDTH SOLIDUS}b",
    "division slash": "a\N{DIVISION SLASH}b",
    "cyrillic": "l\N{CYRILLIC SMALL LETTER A}bels",
    "arabic digit": "v\N{ARABIC-INDIC DIGIT ONE}",
    "zero width": "la\N{ZERO WIDTH SPACE}bels",
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}x",
    "surrogate": "a\ud800",
    "300 characters": "a" * 300,
    "leading dot": ".hidden",
    "leading dash": "-rf",
    "newline": "a\nb",
    "newline at the end": "a\n",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "escape": "a\x1b[2J",
    "backslash": "a\\b",
    "backslash up": "..\\x",
    "home": "~",
    "home of": "~root",
    "drive": "c:x",
    "star": "*",
    "space": "a b",
    "capitals": "Labels",  # another key in S3, the same file on some disks
}
HOSTILE_DATASETS = HOSTILE | {
    "models alone": "models",
    "model without name": "models/",
    "model up": "models/..",
    "model folders": "models/a/b",
    "model escaped": "models/%2e%2e",
    "other folder": "labels/x",
}
VERSION = "0" * 32
GOOD_DERIVATION = Derivation(
    stage="s", dataset="labels", code_version=1, config={}, inputs={}, constitution=None, models={}, seed=0, force=None
)
ROWS = pa.table({"row_id": ["r"], "reuse_key": ["k"], "status": ["ok"], "row_hash": ["0" * 64]})
ONE_PART = (Part(path="a/part-00000.parquet", sha256="0" * 64, bytes=1, rows=1),)
GOOD_MANIFEST = new_manifest(GOOD_DERIVATION, "rows", "0" * 64, ONE_PART, {}, {}, rows=1)

GOOD: dict[str, Any] = {
    "dataset": "labels",
    "version": VERSION,
    "versions": (VERSION,),
    "key": "00000-aa",
    "name": "log.txt",
    "tag": "prod",
    "ref": DatasetRef(dataset="labels", version=VERSION, content_hash="0" * 64, rows=1),
    "derivation": GOOD_DERIVATION,
    "manifest": GOOD_MANIFEST,
    "by": "somebody",
    "columns": None,
    "cost": {},
    "data": b"",
    "folder": Path("unused"),
    "metrics": {},
    "rows": ROWS,
    "sequence": 0,
    "suffixes": (".json",),
    "table": ROWS,
}
"""A good value for each parameter of a method of Store, by its name."""

Case = tuple[str, dict[str, Any]]


def hostile_values(parameter: str, bad: dict[str, str]) -> Iterator[Case]:
    """The values of a parameter that hold a hostile name; none for one that holds no name."""
    for title, text in bad.items():
        if parameter in ("version", "key", "name", "tag", "dataset"):
            yield title, {parameter: text}
        elif parameter == "versions":
            yield title, {parameter: (VERSION, text)}
        elif parameter == "derivation":
            yield title, {parameter: GOOD_DERIVATION.model_copy(update={"dataset": text})}
        elif parameter == "manifest":
            yield title, {parameter: GOOD_MANIFEST.model_copy(update={"dataset": text})}
            if title in HOSTILE:
                yield f"{title} version", {parameter: GOOD_MANIFEST.model_copy(update={"version": text})}


def hostile_refs(reference: type[DatasetRef] | type[ModelRef]) -> Iterator[Case]:
    """References with a hostile name. (A surrogate cannot be in a model that was validated.)"""
    for title, text in HOSTILE_DATASETS.items():
        good: DatasetRef | ModelRef = GOOD["ref"]
        if reference is ModelRef:
            good = ModelRef(model="models/sl", version=VERSION, content_hash="0" * 64)
        field = "model" if reference is ModelRef else "dataset"
        yield f"{title} {field}", {"ref": good.model_copy(update={field: text})}
        if title in HOSTILE:
            yield f"{title} version", {"ref": good.model_copy(update={"version": text})}


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, what is wrong, and its arguments, for every public method of Store and every name it takes."""
    for method, function in inspect.getmembers(Store, inspect.isfunction):
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if method.startswith("_"):
            continue
        for parameter in parameters:
            bad = HOSTILE_DATASETS if parameter.name in ("dataset", "derivation", "manifest") else HOSTILE
            found = hostile_values(parameter.name, bad)
            if parameter.name == "ref":
                found = hostile_refs(parameter.annotation)
            for title, value in found:
                yield method, f"{parameter.name}: {title}", value


CASES = list(cases())


class Recorder:
    """A backend that answers nothing and remembers that it was asked."""

    uri = "recorder"

    def __init__(self) -> None:
        self.requests: list[str] = []

    def location(self, key: str) -> str:
        return key

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def asked(*arguments: Any, **named: Any) -> Any:
            self.requests.append(f"{operation} {arguments[:1]}")
            raise AssertionError(f"a request was made: {operation} {arguments[:1]}")

        return asked


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def drain(result: Any) -> None:
    """Do whatever a method put off until its result is used."""
    if isinstance(result, AbstractContextManager):
        with result:
            return
    if isinstance(result, Iterator):
        list(result)


def call(function: Callable[..., Any], bad: dict[str, Any]) -> None:
    """Call a method with good arguments but one."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        value = bad.get(parameter.name, GOOD[parameter.name])
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += value
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            positional.append(value)
    drain(function(*positional, **named))


@pytest.mark.parametrize("method", sorted({method for method, _, _ in CASES}))
def test_store_method_refuses_hostile_names_before_any_request(method: str, recorder: Recorder, tmp_path: Path) -> None:
    store = Store(recorder, tmp_path / "cache")
    accepted = []
    for name, title, bad in CASES:
        if name == method:
            try:
                call(getattr(store, method), bad)
                accepted.append(title)
            except InvalidName:
                continue
            except AssertionError:
                accepted.append(title)
    assert accepted == []
    assert recorder.requests == []
    assert not (tmp_path / "cache").exists()


def test_store_methods_have_no_parameter_that_this_test_does_not_know() -> None:
    functions = inspect.getmembers(Store, inspect.isfunction)
    public = {name: list(inspect.signature(f).parameters)[1:] for name, f in functions if not name.startswith("_")}
    unknown = {name: [p for p in found if p not in GOOD] for name, found in public.items()}
    assert {name: found for name, found in unknown.items() if found} == {}, "add them to GOOD, and names to HOSTILE"
    assert {"find", "read", "fetch_model", "chunk_put", "put_blob", "commit_rows"} <= {name for name, _, _ in CASES}


OTHERS: dict[str, tuple[Callable[[Store, str], Any], dict[str, str]]] = {
    "verify_version, dataset": (lambda store, text: verify_version(store, text, VERSION), HOSTILE_DATASETS),
    "verify_version, version": (lambda store, text: verify_version(store, "labels", text), HOSTILE),
    "verify_store": (lambda store, text: list(verify_store(store, [text])), HOSTILE_DATASETS),
    "diff_versions, dataset": (
        lambda store, text: diff_versions(store, GOOD["ref"].model_copy(update={"dataset": text}), GOOD["ref"]),
        HOSTILE_DATASETS,
    ),
    "ReuseIndex.build": (lambda store, text: ReuseIndex.build(store, text, "0" * 64, ROWS.schema), HOSTILE_DATASETS),
    "claim, dataset": (lambda store, text: claim(store, text, VERSION, "me"), HOSTILE_DATASETS),
    "claim, version": (lambda store, text: claim(store, "labels", text, "me"), HOSTILE),
}


@pytest.mark.parametrize("function", OTHERS)
def test_function_on_a_store_refuses_hostile_names_before_any_request(
    function: str, recorder: Recorder, tmp_path: Path
) -> None:
    act, hostile = OTHERS[function]
    for text in hostile.values():
        with pytest.raises(InvalidName):
            act(Store(recorder, tmp_path), text)
    assert recorder.requests == []


@pytest.mark.parametrize("text", [text for title, text in HOSTILE.items() if title not in ("capitals", "folders")])
def test_check_file_path_refuses_what_could_leave_its_folder(text: str) -> None:
    for path in (text, f"folder/{text}", f"{text}/file"):
        with pytest.raises(InvalidName):
            check_file_path(path)


@pytest.mark.parametrize("title", ["leading dot", "escaped dots", "version query", "cyrillic", "newline", "star"])
def test_commit_model_hostile_file_name_is_refused_and_nothing_is_written(tmp_path: Path, title: str) -> None:
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / f"{HOSTILE[title].replace('/', '')}.safetensors").write_bytes(b"weights")
    made_by = GOOD_DERIVATION.model_copy(update={"dataset": "models/sl"})
    with pytest.raises(InvalidName):
        store.commit_model(made_by, tmp_path / "model", metrics={}, cost={})
    assert not list((tmp_path / "store").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        " ",
        "s3://",
        "s3:///x",
        "s3://..",
        "s3://Bucket/x",
        "s3://bucket/../other",
        "s3://bucket/a//b",
        "s3://bucket/%2e%2e/other",
        "s3://bucket/x?versionId=1",
        "s3://bucket/x#y",
        "s3://bucket/a\0b",
        "s3://bucket/a\nb",
        "s3://bucket/.hidden",
        "s3://bucket/~",
        "s3://bucket/a\\b",
        "s3://b\N{CYRILLIC SMALL LETTER U}cket/x",
        "s3://bucket/a\N{FULLWIDTH SOLIDUS}b",
        "s3://user:geheim@bucket/x",
        "s3://" + "a" * 300,
        "http://bucket/x",
        "file:///etc",
        "S3://bucket/x",
    ],
)
def test_open_hostile_address_is_refused_before_any_request(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("tasks.store.s3.open_file_system", connect)
    with pytest.raises(StoreError) as error:
        Store.open(uri)
    assert "geheim" not in str(error.value)


@given(st.text())
def test_check_name_accepts_only_plain_segments(text: str) -> None:
    for check in (check_name, check_dataset):
        try:
            name = check(text)
        except InvalidName:
            continue
        name = name.removeprefix("models/")
        assert name.isascii()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
        assert name[0] not in "._-"
        assert ".." not in name


@given(st.text(alphabet="a./\\%0\0\n~-_A?", min_size=1))
def test_check_file_path_accepts_only_paths_that_stay_in_their_folder(text: str) -> None:
    try:
        path = check_file_path(text)
    except InvalidName:
        return
    folder = Path("/folder")
    assert (folder / path).resolve().is_relative_to(folder)
    assert Path(path).as_posix() == path
    assert set(path) <= set("a./0-_A")
