"""What lm-eval is told and asked, and what is read out of its results; small scripts stand in for it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.harness import environment
from tasks.harness.environment import (
    HarnessError,
    check_tasks,
    clean_environment,
    installed_version,
    lm_eval_python,
    split_tasks,
)
from tasks.harness.results import count_truncated, rows_of
from tasks.harness.running import (
    CapabilityConfig,
    Told,
    begins_with_bos,
    command,
    expect_one_server,
    results_file,
    run_to_end,
    without_place,
)
from tasks.serving import ServingConfig, TransientServingError

TOLD = Told(Path("/models/a,b"), 96, frozenset({7, 4}), add_bos=True)


class Served:
    """A server that is said to be there, until `dead` says why it is not."""

    url, model_name = "http://127.0.0.1:1", "solon-1"

    def __init__(self, dead: str | None = None) -> None:
        self.dead = dead

    def death(self) -> str | None:
        return self.dead

    def stop(self) -> None:
        return None


def asked(**fields: Any) -> list[str]:
    config = CapabilityConfig(**fields)
    return command(Path("python"), "arc", None, config, TOLD, Served(), ServingConfig(), Path("out"))


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_command_tells_lm_eval_what_a_server_does_not_say():
    argv = asked()
    model = json.loads(option(argv, "--model_args"))
    assert model["tokenizer"] == "/models/a,b"
    assert (model["max_length"], model["add_bos_token"], model["tokenized_requests"]) == (96, True, True)
    assert model["base_url"] == "http://127.0.0.1:1/v1/completions"
    assert model["num_concurrent"] > 1
    assert json.loads(option(argv, "--gen_kwargs")) == {"stop_token_ids": [4, 7]}


def test_command_has_only_what_was_asked_and_never_runs_a_hubs_code():
    options = {"--limit", "--num_fewshot", "--include_path", "--apply_chat_template"}
    assert not options & set(asked())
    argv = asked(limit=3, num_fewshot=0, chat_template="model")
    assert (option(argv, "--limit"), option(argv, "--num_fewshot")) == ("3", "0")
    assert "--apply_chat_template" in argv
    assert not {"--trust_remote_code", "--confirm_run_unsafe_code"} & set(argv)


def test_environment_keeps_credentials_from_lm_eval_and_reports_nothing(monkeypatch):
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    env = clean_environment()
    assert not {"OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & set(env)
    assert (env["HF_HUB_OFFLINE"], env["HF_HUB_DISABLE_TELEMETRY"], env["DO_NOT_TRACK"]) == ("1", "1", "1")


def test_environment_that_cannot_be_made_is_an_error_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.delenv("SOLON_LM_EVAL_PYTHON", raising=False)
    setup = tmp_path / "setup.py"
    setup.write_text("import sys; sys.exit('no such package: ' + ' '.join(sys.argv[1:]))")
    monkeypatch.setattr(environment, "SETUP", setup)
    with pytest.raises(HarnessError, match=r"no such package: --tool lm-eval[\s\S]*SOLON_LM_EVAL_PYTHON"):
        lm_eval_python()


def test_environment_named_by_hand_must_be_there_and_hold_lm_eval(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLON_LM_EVAL_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(HarnessError, match="nowhere"):
        lm_eval_python()
    with pytest.raises(HarnessError, match="lm_eval"):
        installed_version(Path(sys.executable))


def test_tasks_are_split_once_each_and_only_names_pass():
    assert split_tasks("arc_easy, mmlu,arc_easy") == ["arc_easy", "mmlu"]
    for wrong in ("", ",", "mmlu*", "../task.yaml", "task.yaml", "a b", "--help", "[x]"):
        with pytest.raises(HarnessError, match="--tasks"):
            split_tasks(wrong)


def test_tasks_unknown_one_is_an_error_that_lists_near_names():
    known = ["arc_easy", "arc_challenge", "mmlu"]
    check_tasks(["mmlu", "arc_easy"], known)
    with pytest.raises(HarnessError, match=r"'arc_eazy' \(near: arc_easy.*'qqq' \(near: nothing\)"):
        check_tasks(["arc_eazy", "mmlu", "qqq"], known)


def wrapped(core: Any, before: str = "", after: str = "", **fields: Any) -> Any:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    ids = [(token, core.token_to_id(token)) for token in ("<|pad|>", "<|end|>")]
    core.post_processor = TemplateProcessing(single=f"{before} $A {after}".strip(), special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|pad|>", eos_token="<|end|>", **fields)


@pytest.fixture(scope="module")
def core():
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(__file__).parents[1] / "tasks" / "micro" / "model" / "tokenizer.json"))


def test_bos_is_added_where_the_tokenizer_begins_texts_with_it(core):
    assert begins_with_bos(wrapped(core, before="<|pad|>"), "none") is True
    assert begins_with_bos(wrapped(core), "none") is False
    assert begins_with_bos(wrapped(core, after="<|end|>"), "none") is False


def test_bos_with_an_end_behind_the_text_is_refused(core):
    with pytest.raises(HarnessError, match="both sides"):
        begins_with_bos(wrapped(core, before="<|pad|>", after="<|end|>"), "none")


def test_bos_is_not_doubled_where_the_template_writes_it(core):
    turns = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    writes = wrapped(core, before="<|pad|>", chat_template="<|pad|>" + turns)
    assert begins_with_bos(writes, "model") is False
    assert begins_with_bos(wrapped(core, before="<|pad|>", chat_template=turns), "model") is True


def results(**over: Any) -> dict[str, Any]:
    """As lm-eval 0.4.13 writes them."""
    return {
        "results": {
            "pair": {"alias": "pair", "sample_len": 7, "acc,none": 0.5, "sample_count": {"acc,none": 7}},
            "gsm": {"alias": " - gsm", "sample_len": 4, "exact_match,strict": 0.25, "exact_match_stderr,strict": 0.1},
            "arc": {
                "alias": " - arc", "sample_len": 3, "acc,none": 1, "acc_stderr,none": "N/A", "word,none": float("nan"),
            },
        },
        "configs": {"gsm": {"output_type": "generate_until"}, "arc": {"output_type": "multiple_choice"}},
        "versions": {"pair": 2, "gsm": 3.0, "arc": 1.0},
        "n-shot": {"gsm": 5, "arc": 0},
        "n-samples": {"gsm": {"original": 9, "effective": 4}, "arc": {"original": 3, "effective": 3}},
        "higher_is_better": {"arc": {"acc": True}},
        **over,
    }  # fmt: skip


def test_results_become_a_row_a_metric_with_error_and_documents():
    group, filtered, plain, broken = rows_of(results(), {"gsm": 2}, add_bos=False)
    assert (group.task, group.value, group.num_samples, group.num_all, group.num_truncated) == (
        "pair",
        0.5,
        7,
        None,
        None,
    )
    assert (filtered.metric, filtered.filter, filtered.value, filtered.stderr) == ("exact_match", "strict", 0.25, 0.1)
    assert (filtered.num_samples, filtered.num_all, filtered.num_fewshot, filtered.num_truncated) == (4, 9, 5, 2)
    assert (plain.value, plain.stderr, plain.higher_is_better, plain.num_truncated) == (1.0, None, True, 0)
    assert (broken.value, broken.status) == (None, "failed")


def test_results_without_documents_are_an_error():
    empty = results(results={"arc": {"alias": "arc"}}, **{"n-samples": {}})
    with pytest.raises(HarnessError, match="nothing for arc"):
        rows_of(empty, {}, add_bos=False)
    none = results(results={"arc": {"acc,none": 0.0}}, **{"n-samples": {"arc": {"original": 0, "effective": 0}}})
    with pytest.raises(HarnessError, match="nothing for arc"):
        rows_of(none, {}, add_bos=False)


def test_results_of_rolling_tasks_are_not_believed_where_a_bos_is_added():
    rolling = results(configs={"arc": {"output_type": "loglikelihood_rolling"}})
    by_task = {row.task: row.status for row in rows_of(rolling, {}, add_bos=True) if row.metric != "word"}
    assert by_task == {"pair": "ok", "gsm": "ok", "arc": "failed"}
    assert all(row.status == "ok" for row in rows_of(rolling, {}, add_bos=False) if row.metric != "word")


def test_results_are_kept_without_addresses_and_folders():
    given = {
        "config": {"model_args": {"base_url": "http://me:secret@host", "max_length": 9}},
        "a": [{"tokenizer": "/x"}],
    }
    assert without_place(given) == {"config": {"model_args": {"max_length": 9}}, "a": [{}]}


def sample(doc: int, text: str, then: Any = None) -> str:
    request = {"arg_0": text} if then is None else {"arg_0": text, "arg_1": then}
    return json.dumps({"doc_id": doc, "arguments": {"gen_args_0": request}})


def test_truncated_documents_are_counted_once_by_task(tmp_path):
    fits, long = "x" * 5, "x" * 6
    lines = {
        "a": [sample(0, fits, "four"), sample(1, long, "four"), sample(1, long, "four"), sample(2, "x" * 90)],
        "b_c": [sample(0, fits, {"max_gen_toks": 4}), sample(1, long, {"max_gen_toks": 4}), sample(2, "x", {})],
    }
    for task, given in lines.items():
        (tmp_path / f"samples_{task}_2026-11-29T00-52-59.134313.jsonl").write_text("\n".join(given))
    assert count_truncated(tmp_path, lambda text: list(text.encode()), context_tokens=10) == {"a": 1, "b_c": 2}


def run(folder: Path, code: str, server: Served | None = None) -> list[tuple[int, int]]:
    """What was shown; the file `shown` is there once anything was."""
    shown: list[tuple[int, int]] = []

    def show(*found: int) -> None:
        shown.append(found)
        (folder / "shown").touch()

    run_to_end([sys.executable, "-c", code], server or Served(), folder / "run", show)
    return shown


def test_run_that_fails_is_an_error_with_the_end_of_its_log(tmp_path):
    code = "print('Requesting API:  50%|#| 1/2 [00:01<00:01]\\nno such data set'); raise SystemExit(3)"
    with pytest.raises(HarnessError, match="ended with code 3") as raised:
        run(tmp_path, code)
    assert "no such data set" in str(raised.value)
    assert "50%|" not in str(raised.value)


def test_run_whose_server_dies_is_stopped_and_may_be_tried_again(tmp_path):
    with pytest.raises(TransientServingError, match="died under lm-eval: out of memory"):
        run(tmp_path, "import time; time.sleep(600)", Served(dead="out of memory"))


def test_run_shows_requests_while_it_goes_on(tmp_path):
    bars = "Requesting API:   0%|  | 0/8 [00:00<?]\\rRequesting API:  38%|# | 3/8 [00:16<00:20, 6s/it]"
    until_seen = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'shown')!r}): time.sleep(0.01)"
    assert set(run(tmp_path, f"print('{bars}', flush=True)\n{until_seen}")) == {(3, 8)}


def test_run_again_begins_with_an_empty_folder_and_results_must_be_there(tmp_path):
    run(tmp_path, f"open({str(tmp_path / 'run' / 'results_1.json')!r}, 'w').write('1')")
    assert results_file(tmp_path / "run").read_text() == "1"
    run(tmp_path, "pass")
    with pytest.raises(HarnessError, match="left 0 files"):
        results_file(tmp_path / "run")


@pytest.mark.parametrize("url", ["http://a:1 http://b:1", "dns+http://vllm:8000"])
def test_several_servers_are_refused_since_lm_eval_asks_one(url):
    with pytest.raises(HarnessError, match="is several servers, and lm-eval asks one"):
        expect_one_server(ServingConfig(url=url))
    for one in (None, "http://a:1/v1"):
        expect_one_server(ServingConfig(url=one))
