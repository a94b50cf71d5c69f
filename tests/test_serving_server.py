"""Servers of our own: started, kept, restarted and stopped; a small script stands in for vLLM."""

import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.processes import free_port
from tasks.schema import Message, ModelRef
from tasks.serving import (
    GenerationRequest,
    Sampling,
    ServingConfig,
    ServingError,
    TransientServingError,
    close_all,
    open_generator,
)
from tests.tiny_model import make_tiny_model

# Speaks as much of vLLM's HTTP as is needed: each completion is the byte of a letter, then the end token 4.
STAND_IN = """#!{python}
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

options = dict(a[2:].split("=", 1) for a in sys.argv if a.startswith("--") and "=" in a)
folder = os.path.dirname(os.path.abspath(__file__))
with open(folder + "/starts", "a") as starts:
    starts.write(options["model"] + "\\n")
first = len(open(folder + "/starts").readlines()) == 1
mode = os.environ.get("STAND_IN", "")
if mode == "dies":
    sys.exit("RuntimeError: no such architecture")
if mode == "port race" and first:
    sys.exit("OSError: [Errno 98] Address already in use")
if mode == "hangs":
    time.sleep(600)

class Handler(BaseHTTPRequestHandler):
    def reply(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.reply({{"data": [{{"id": options["served-model-name"], "max_model_len": 512}}]}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(folder + "/requests", "a") as requests:
            requests.write(json.dumps(body) + "\\n")
        if mode == "dies in a batch" and first:
            print("ERROR the engine is on fire", flush=True)
            os._exit(0)
        self.reply({{"choices": [{{"finish_reason": "stop", "token_ids": [70, 4]}}]}})

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(options["port"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("SOLON_VLLM_PYTHON", str(program))
    yield program.parent
    close_all()


@pytest.fixture
def config(tmp_path):
    return ServingConfig(scratch=tmp_path / "scratch", startup_seconds=30, num_retries=1)


def model(name: str) -> ModelRef:
    return ModelRef(model="external", version=name, content_hash=name)


def say(generator, number: int = 1):
    requests = [GenerationRequest([Message(role="user", content=f"Hi {i}")], seed=100 + i) for i in range(number)]
    return generator.generate(requests, Sampling(max_tokens=5, temperature=0.5))


def open_once(folder, config) -> None:
    with open_generator(model("a"), folder, config):
        pass


def num_starts(stand_in: Path) -> int:
    return len((stand_in / "starts").read_text().splitlines())


def test_open_generator_starts_a_server_and_keeps_it_for_the_next_use(folder, stand_in, config):
    with open_generator(model("a"), folder, config) as generator:
        first = say(generator)
    with open_generator(model("a"), folder, config) as generator:
        assert say(generator) == first
    assert first[0].finish_reason == "stop" and first[0].num_tokens == 2 and len(first[0].text) == 1
    assert num_starts(stand_in) == 1


def test_open_generator_every_request_has_its_seed_and_all_decoding_settings(folder, stand_in, config):
    import json

    with open_generator(model("a"), folder, config) as generator:
        say(generator, 3)
    sent = [json.loads(line) for line in (stand_in / "requests").read_text().splitlines()]
    assert sorted(body["seed"] for body in sent) == [100, 101, 102]
    assert all(body["temperature"] == 0.5 and body["max_tokens"] == 5 and body["top_p"] == 1 for body in sent)
    assert all(body["repetition_penalty"] == 1 and body["top_k"] == 0 for body in sent)


def test_open_generator_second_model_takes_the_place_of_the_least_recently_used(folder, stand_in, config):
    two = config.model_copy(update={"num_servers_kept": 2})
    for name in ("a", "b", "a", "c", "a", "b"):  # c takes the place of b, then b that of c
        with open_generator(model(name), folder, two) as generator:
            say(generator)
    assert num_starts(stand_in) == 4


def test_open_generator_server_in_use_is_not_stopped_for_another(folder, stand_in, config):
    with open_generator(model("a"), folder, config) as outer:
        with open_generator(model("b"), folder, config) as inner:
            say(inner)
        say(outer)
    assert num_starts(stand_in) == 2


def test_open_generator_two_threads_share_one_server(folder, stand_in, config):
    def use(_: int) -> str | None:
        with open_generator(model("a"), folder, config) as generator:
            return say(generator)[0].error

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(4))) == [None] * 4
    assert num_starts(stand_in) == 1


def test_open_generator_server_that_died_in_a_batch_is_named_and_started_again(folder, stand_in, config, monkeypatch):
    monkeypatch.setenv("STAND_IN", "dies in a batch")
    died = pytest.raises(TransientServingError, match=r"(?s)died during a batch.*code 0.*the engine is on fire")
    with open_generator(model("a"), folder, config) as generator, died:
        say(generator, 3)
    with open_generator(model("a"), folder, config) as generator:
        assert say(generator)[0].error is None


def test_close_all_stops_the_server(folder, stand_in, config):
    with open_generator(model("a"), folder, config) as generator:
        say(generator)
    close_all()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(generator.server.url.rpartition(":")[2])), 1)


def test_start_vllm_missing_names_setup_and_the_other_engine(folder, config, monkeypatch):
    monkeypatch.setenv("SOLON_VLLM_PYTHON", "/no/such/python")
    with pytest.raises(ServingError, match=r"(?s)/no/such/python.*make setup.*engine: transformers"):
        open_once(folder, config)


def test_start_port_in_use_is_named(folder, stand_in, config):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} .* is in use"):
            open_once(folder, config.model_copy(update={"port": port}))


def test_start_given_port_is_used(folder, stand_in, config):
    port = free_port()
    with open_generator(model("a"), folder, config.model_copy(update={"port": port})) as generator:
        say(generator)
        socket.create_connection(("127.0.0.1", port), 1).close()


def test_start_port_taken_by_another_meanwhile_is_tried_again(folder, stand_in, config, monkeypatch):
    monkeypatch.setenv("STAND_IN", "port race")
    with open_generator(model("a"), folder, config) as generator:
        assert say(generator)[0].error is None
    assert num_starts(stand_in) == 2


def test_start_server_that_dies_shows_its_log(folder, stand_in, config, monkeypatch):
    monkeypatch.setenv("STAND_IN", "dies")
    with pytest.raises(ServingError, match=r"(?s)did not start.*code 1.*no such architecture"):
        open_once(folder, config)
    assert num_starts(stand_in) == 1


def test_start_server_that_never_gets_ready_is_given_up(folder, stand_in, config, monkeypatch):
    monkeypatch.setenv("STAND_IN", "hangs")
    with pytest.raises(ServingError, match="not ready after 1 s"):
        open_once(folder, config.model_copy(update={"startup_seconds": 1}))
