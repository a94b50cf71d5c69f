"""A URL is believed only when the server behind it gives the model's own log-probabilities."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tasks.processes import free_port
from tasks.schema import Message, ModelRef
from tasks.serving import ChoiceRequest, ServingConfig, ServingError, close_all, open_generator
from tasks.serving.transformers_engine import TransformersGenerator
from tests.tiny_model import make_tiny_model

MODEL = ModelRef(model="external", version="v1", content_hash="c" * 64, source="some/model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


class Server:
    """Serves log-probabilities of a transformers model in the form of vLLM."""

    def __init__(self, folder):
        self.engine = TransformersGenerator.load(folder, ServingConfig(engine="transformers"))
        self.models = [{"id": "anything", "max_model_len": 512}]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self, body):
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                self.reply({"data": outer.models})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.name_asked = body["model"]
                row = outer.engine.next_logprobs([body["prompt"]])[0]
                top = {f"token_id:{i}": float(row[i]) for i in body["logprob_token_ids"]}
                self.reply({"choices": [{"finish_reason": "length", "logprobs": {"top_logprobs": [top]}}]})

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(folder):
    server = Server(folder)
    yield server
    close_all()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def config(server, tmp_path):
    return ServingConfig(url=server.url, dtype="float32", scratch=tmp_path)


def ask(folder, config, model=MODEL):
    with open_generator(model, folder, config) as generator:
        return generator.choose([ChoiceRequest([Message(role="user", content="Hi")])], ("(A", "(B"))


def test_url_serving_the_model_is_used_and_the_reference_is_kept(folder, server, config):
    (choice,) = ask(folder, config)
    local = server.engine.choose([ChoiceRequest([Message(role="user", content="Hi")])], ("(A", "(B"))
    assert choice.logprobs == pytest.approx(local[0].logprobs, abs=1e-6)
    assert len(list(config.scratch.glob("reference-*.json"))) == 1


def test_url_serving_other_weights_is_refused(folder, config, tmp_path):
    other = make_tiny_model(tmp_path / "other", hidden=64)
    with pytest.raises(ServingError, match="serves another model than"):
        ask(other, config)


def test_url_without_weights_to_compare_says_that_it_is_unchecked(folder, config, tmp_path, caplog):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    assert ask(bare, config)[0].error is None
    assert "unchecked" in caplog.text


def test_url_where_nobody_answers_is_an_error(folder, tmp_path):
    config = ServingConfig(url=f"http://127.0.0.1:{free_port()}", scratch=tmp_path)
    with pytest.raises(ServingError, match="no healthy vLLM server"):
        ask(folder, config)


def test_url_serving_several_models_takes_the_one_named_like_ours(folder, server, config):
    server.models += [{"id": "some/model", "max_model_len": 512}]
    assert ask(folder, config)[0].error is None
    assert server.name_asked == "some/model"


def test_url_serving_several_unknown_models_is_an_error(folder, server, config):
    server.models += [{"id": "another", "max_model_len": 512}]
    with pytest.raises(ServingError, match=r"another.*anything.*expected one model"):
        ask(folder, config)


def test_url_with_a_shorter_context_is_an_error_that_names_the_setting(folder, server, config):
    server.models[0]["max_model_len"] = 100
    with pytest.raises(ServingError, match=r"100 tokens, 512 are asked.*max_model_tokens"):
        ask(folder, config)
    assert ask(folder, config.model_copy(update={"max_model_tokens": 100}))[0].error is None


def test_url_with_another_engine_is_refused():
    with pytest.raises(ValueError, match=r"url: .* needs engine: vllm"):
        ServingConfig(url="http://127.0.0.1:8000", engine="transformers")


def test_url_of_two_servers_of_the_model_asks_both(folder, server, config):
    other = Server(folder)
    other.models[0]["id"] = "another name"
    both = config.model_copy(update={"url": f"{server.url} {other.url}"})
    question = ChoiceRequest([Message(role="user", content="Hi")])
    with open_generator(MODEL, folder, both) as generator:
        choices = generator.choose([question] * 40, ("(A", "(B"))
        assert all(replica.num_answered for replica in generator.server.replicas)
    local = server.engine.choose([question], ("(A", "(B"))
    assert all(choice.logprobs == pytest.approx(local[0].logprobs, abs=1e-6) for choice in choices)
    assert (server.name_asked, other.name_asked) == ("anything", "another name")
    other.http.shutdown()
    other.http.server_close()


@pytest.mark.parametrize("difference", ["weights", "context"])
def test_url_of_two_servers_of_which_one_is_another_is_refused(folder, server, config, tmp_path, difference):
    other = Server(make_tiny_model(tmp_path / "other", hidden=64) if difference == "weights" else folder)
    other.models[0]["max_model_len"] = 512 if difference == "weights" else 100
    both = config.model_copy(update={"url": f"{server.url} {other.url}"})
    expected = "serves another model than" if difference == "weights" else "100 tokens, 512 are asked"
    with pytest.raises(ServingError, match=f"{other.url} .*{expected}|{other.url} holds {expected}"):
        ask(folder, both)
    other.http.shutdown()
    other.http.server_close()


def test_url_of_two_servers_of_which_one_is_not_there_uses_the_other(folder, server, config):
    both = config.model_copy(update={"url": f"http://127.0.0.1:{free_port()} {server.url}"})
    assert ask(folder, both)[0].error is None


def test_url_serving_another_model_is_passed_over_where_that_is_asked(folder, server, config, monkeypatch, caplog):
    started = []

    def start(folder, config):
        started.append(folder)
        return TransformersGenerator.load(folder, ServingConfig(engine="transformers"))

    monkeypatch.setattr("tasks.serving.vllm_engine.start", start)
    asked = config.model_copy(update={"on_other_model": "start"})
    server.models = [{"id": "some/model", "max_model_len": 512}]
    ask(folder, asked)
    assert started == []  # it serves the model
    server.models = [{"id": "other/model", "max_model_len": 512}]  # with the same weights: the name alone tells
    ask(folder, config, MODEL.model_copy(update={"content_hash": "d" * 64}))
    assert started == []
    ask(folder, asked, MODEL.model_copy(update={"content_hash": "e" * 64}))
    assert started == [folder]
    assert f"a server is started here for {folder}: url: {server.url} serves ['other/model']" in caplog.text


def test_url_where_nobody_answers_is_an_error_whatever_is_asked_of_other_models(folder, tmp_path):
    config = ServingConfig(url=f"http://127.0.0.1:{free_port()}", on_other_model="start", scratch=tmp_path)
    with pytest.raises(ServingError, match="is no healthy vLLM server"):
        ask(folder, config)
