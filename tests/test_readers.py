"""Plain prompts and the opening of files: all that is in a file becomes a row, or it is a clear error."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from tasks.readers import ReadError, read_preferences, read_prompts

ROOT = Path(__file__).parents[1]
PAIR = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}


def write(path: Path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def summary(prompts) -> list[tuple[str, str, str]]:
    return [(p.source, p.status, p.messages[-1].content if p.messages else "") for p in prompts]


# --- text


def test_txt_every_line_is_a_row_and_blank_ones_are_skipped_with_reason(tmp_path):
    rows = read_prompts(write(tmp_path / "p.txt", "one: two\n\n  \nthree\u2028four\r\nlast"))
    assert summary(rows) == [
        ("p.txt:1", "ok", "one: two"),
        ("p.txt:2", "skipped", ""),
        ("p.txt:3", "skipped", "  "),
        ("p.txt:4", "ok", "three\u2028four"),
        ("p.txt:5", "ok", "last"),
    ]
    assert rows[1].reason == "turn 1 (user) is empty"
    assert rows[2].raw == "  "


def test_txt_final_newline_makes_no_row(tmp_path):
    assert len(read_prompts(write(tmp_path / "p.txt", "one\ntwo\n"))) == 2


def test_txt_undecodable_line_is_kept_with_its_bytes_shown(tmp_path):
    rows = read_prompts(write(tmp_path / "p.txt", b"\xef\xbb\xbfgood\ncaf\xe9\nfine \xc3\xa9\n"))
    assert summary(rows) == [
        ("p.txt:1", "ok", "good"),
        ("p.txt:2", "unparsable", ""),
        ("p.txt:3", "ok", "fine é"),
    ]
    assert (rows[1].reason, rows[1].raw) == ("bytes that are not UTF-8", "caf\\xe9")


@given(st.lists(st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), min_size=1), min_size=1))
def test_txt_prompts_come_out_as_written(tmp_path_factory, lines):
    lines = [line.removesuffix("\r") + "." for line in lines]
    file = tmp_path_factory.mktemp("txt") / "p.txt"
    rows = read_prompts(write(file, "\n".join(lines)))
    # a byte order mark at the very start is the file's, not the prompt's
    assert [row.messages[0].content for row in rows] == [lines[0].removeprefix("\ufeff"), *lines[1:]]


# --- jsonl


def test_jsonl_prompt_messages_kind_and_group_are_read(tmp_path):
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    lines = [
        {"prompt": "p: q\n\nr", "kind": "helpful", "group": "g", "other": 1},
        {"messages": talk},
        {"prompt": talk},
    ]
    rows = read_prompts(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, lines))))
    assert [row.status for row in rows] == ["ok"] * 3
    assert (rows[0].messages[0].content, rows[0].kind, rows[0].group) == ("p: q\n\nr", "helpful", "g")
    assert [message.role for message in rows[1].messages] == ["system", "user"]
    assert rows[1].messages == rows[2].messages
    assert (rows[1].kind, rows[1].group) == (None, None)


@pytest.mark.parametrize(
    ("row", "status", "reason"),
    [
        ({"prompt": ""}, "skipped", "turn 1 (user) is empty"),
        ({"prompt": None}, "skipped", "turn 1 (user) is empty"),
        ({"prompt": 3}, "unparsable", "prompt: int, expected text or a list of messages"),
        ({"messages": []}, "unparsable", "no turns, expected one that ends with the user's"),
        ({"messages": "hi"}, "unparsable", "messages: str, expected a list of messages"),
        ({"messages": [{"role": "user"}]}, "unparsable", "messages.0.content: Field required"),
        ({"messages": [{"role": "human", "content": "x"}]}, "unparsable", "messages.0.role: Input should be"),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            "unparsable",
            "ends with a turn of the assistant",
        ),
        (
            {"messages": [{"role": "system", "content": " "}, {"role": "user", "content": "x"}]},
            "skipped",
            "turn 1 (system) is empty",
        ),
        ({"prompt": "x", "kind": "evil"}, "unparsable", "kind: 'evil', expected one of red_team, helpful"),
        ({"prompt": "x", "kind": ["helpful"]}, "unparsable", "kind: ['helpful'], expected one of"),
        ({"prompt": "x", "group": 4}, "unparsable", "group: int, expected text"),
        ({"text": "x"}, "unparsable", "prompt: NoneType, expected text or a list of messages"),
    ],
)
def test_jsonl_row_that_is_no_prompt_is_kept_with_its_reason(tmp_path, row, status, reason):
    lines = [json.dumps({"prompt": "good"}), json.dumps(row)]
    good, bad = read_prompts(write(tmp_path / "p.jsonl", "\n".join(lines)))
    assert good.status == "ok"
    assert bad.status == status
    assert reason in bad.reason
    assert bad.raw == lines[1]


# --- csv


def test_csv_quotes_commas_and_lines_inside_a_prompt_survive(tmp_path):
    prompts = ['say "hi", please', "two\n\nlines", "NA", "12", "é; x", ""]
    with (tmp_path / "p.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["prompt", "kind"], *[[prompt, "red_team"] for prompt in prompts]])
    rows = read_prompts(str(tmp_path / "p.csv"))
    assert [row.messages[0].content for row in rows] == prompts
    assert [row.source for row in rows] == [f"p.csv:{line}" for line in (2, 3, 6, 7, 8, 9)]
    assert [row.status for row in rows] == ["ok"] * 5 + ["skipped"]
    assert {row.kind for row in rows} == {"red_team"}


def test_csv_comma_without_quotes_is_unparsable_not_cut(tmp_path):
    rows = read_prompts(write(tmp_path / "p.csv", "prompt,group\nhello, how are you,x\nfine,x\nshort\n"))
    assert [row.status for row in rows] == ["unparsable", "ok", "unparsable"]
    assert "3 cells under 2 columns" in rows[0].reason
    assert rows[0].raw == '["hello", " how are you", "x"]'


def test_csv_blank_line_and_undecodable_cell_are_rows(tmp_path):
    rows = read_prompts(write(tmp_path / "p.csv", b"prompt\none\n\ncaf\xe9\n"))
    assert [(row.source, row.status) for row in rows] == [
        ("p.csv:2", "ok"),
        ("p.csv:3", "skipped"),
        ("p.csv:4", "unparsable"),
    ]


@pytest.mark.parametrize("content", ['prompt\n"never closed\nmore\n', "prompt,prompt\na,b\n"])
def test_csv_that_cannot_be_told_apart_is_an_error(tmp_path, content):
    with pytest.raises(ReadError, match=r"p\.csv"):
        read_prompts(write(tmp_path / "p.csv", content))


# --- parquet


def test_parquet_prompt_and_messages_are_read_with_nulls_kept(tmp_path):
    table = pa.table({"prompt": pa.array(["one", None, "three"]), "group": ["g", None, "h"]})
    pq.write_table(table, tmp_path / "p.parquet")
    rows = read_prompts(str(tmp_path / "p.parquet"))
    assert summary(rows) == [
        ("p.parquet:1", "ok", "one"),
        ("p.parquet:2", "skipped", ""),
        ("p.parquet:3", "ok", "three"),
    ]
    assert [row.group for row in rows] == ["g", None, "h"]
    assert json.loads(rows[1].raw) == {"prompt": None, "group": None}

    pq.write_table(pa.table({"messages": [[{"role": "user", "content": "hi"}]]}), tmp_path / "m.parquet")
    assert summary(read_prompts(str(tmp_path / "m.parquet"))) == [("m.parquet:1", "ok", "hi")]


def test_parquet_limit_reads_across_batches(tmp_path):
    pq.write_table(pa.table({"prompt": [str(i) for i in range(3000)]}), tmp_path / "p.parquet", row_group_size=700)
    rows = read_prompts(str(tmp_path / "p.parquet"), limit=2500)
    assert [row.messages[0].content for row in rows] == [str(i) for i in range(2500)]


def test_preferences_from_parquet_are_as_from_jsonl(tmp_path):
    pq.write_table(pa.table({name: [text] for name, text in PAIR.items()}), tmp_path / "hh.parquet")
    [row] = read_preferences(str(tmp_path / "hh.parquet"))
    assert (row.status, row.chosen, row.rejected) == ("ok", "b", "c")


# --- files that are errors


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"", "is empty"),
        ("p.jsonl", b"", "is empty"),
        ("p.csv", b"prompt\n", "is empty"),
        ("p.csv", b"", "is empty"),
        ("p.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("p.json", b"{}", "unknown suffix, expected one of .txt, .jsonl"),
        ("p", b"x", "unknown suffix"),
        ("p.parquet", b"no parquet", "cannot be read"),
        ("p.jsonl.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("p.jsonl.gz", gzip.compress(b'{"prompt": "x"}' * 999, mtime=0)[:-20], "cannot be read"),
        ("p.txt", "hello\nthere".encode("utf-16"), "is UTF-16, expected UTF-8"),
        ("p.csv", b"text,kind\na,b\n", "no column prompt or messages or chosen; found kind, text"),
        ("p.jsonl", b'{"text": "x"}\n', "no column prompt or messages or chosen; found text"),
    ],
)
def test_file_that_cannot_be_used_is_an_error_that_names_it(tmp_path, name, content, message):
    uri = write(tmp_path / name, content)
    with pytest.raises(ReadError) as caught:
        read_prompts(uri)
    assert str(caught.value).find(name) >= 0
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nowhere.jsonl", r"nowhere\.jsonl: cannot be read: .*No such file"),
        ("ftp://host/p.txt", r"unknown scheme ftp://, expected a local path, s3:// or hf://"),
        ("hf://lonely", r"expected hf://org/name"),
    ],
)
def test_uri_that_leads_nowhere_is_an_error_that_names_it(uri, message):
    with pytest.raises(ReadError, match=message):
        read_prompts(uri)


def test_limit_below_one_is_an_error(tmp_path):
    with pytest.raises(ReadError, match="limit 0, expected at least 1"):
        read_prompts(write(tmp_path / "p.txt", "x"), limit=0)


# --- formats


def test_auto_takes_prompt_before_chosen_and_chosen_else(tmp_path):
    plain = write(tmp_path / "plain.jsonl", json.dumps({"prompt": "p"} | PAIR))
    hh = write(tmp_path / "hh.jsonl", "not json\n" + json.dumps(PAIR))
    assert summary(read_prompts(plain)) == [("plain.jsonl:1", "ok", "p")]
    assert summary(read_prompts(plain, format="hh")) == [("plain.jsonl:1", "ok", "a")]
    assert summary(read_prompts(hh)) == [("hh.jsonl:1", "unparsable", ""), ("hh.jsonl:2", "ok", "a")]
    with pytest.raises(ReadError, match="no column prompt or messages; found chosen, rejected"):
        read_prompts(hh, format="plain")


def test_source_and_rows_do_not_depend_on_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (write(tmp_path / folder / "p.txt", "x\n\ny") for folder in "ab")
    assert read_prompts(one) == read_prompts(other)


def test_gz_is_read_as_its_content(tmp_path):
    rows = read_prompts(write(tmp_path / "p.txt.gz", gzip.compress(b"one\ntwo\n", mtime=0)))
    assert [row.messages[0].content for row in rows] == ["one", "two"]


# --- s3 and hub


@pytest.fixture
def bucket(monkeypatch):
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="prompts")
    yield client
    server.stop()


def test_s3_objects_read_as_local_files_do(bucket, tmp_path):
    pq.write_table(pa.table({"prompt": ["x", None]}), tmp_path / "p.parquet")
    write(tmp_path / "hh.jsonl.gz", gzip.compress(json.dumps(PAIR).encode()))
    for name in ("p.parquet", "hh.jsonl.gz"):
        bucket.upload_file(str(tmp_path / name), "prompts", f"in/{name}")
        assert read_prompts(f"s3://prompts/in/{name}") == read_prompts(str(tmp_path / name))
    with pytest.raises(ReadError, match=r"s3://prompts/in/none\.txt: cannot be read"):
        read_prompts("s3://prompts/in/none.txt")


def test_hub_dataset_is_read_by_folder_and_split(tmp_path, monkeypatch):
    # `datasets` takes a folder of that name for the dataset: the same code, without a network
    folder = tmp_path / "org" / "name" / "part"
    folder.mkdir(parents=True)
    write(folder / "train.jsonl", json.dumps(PAIR) + "\n" + json.dumps(PAIR))
    write(folder / "test.jsonl", json.dumps(PAIR))
    monkeypatch.chdir(tmp_path)
    assert [row.source for row in read_preferences("hf://org/name/part")] == [
        "org/name/part:1",
        "org/name/part:2",
    ]
    [row] = read_preferences("hf://org/name/part:test", limit=5)
    assert (row.status, row.chosen, row.source) == ("ok", "b", "org/name/part:test:1")
    with pytest.raises(ReadError, match="hf://org/name/part:nowhere: cannot be read"):
        read_preferences("hf://org/name/part:nowhere")


def test_readers_import_without_heavy_libraries():
    heavy = "torch transformers datasets s3fs fsspec pyarrow"
    program = f"import sys, tasks.readers; print([m for m in '{heavy}'.split() if m in sys.modules])"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.strip() == b"[]"
