"""A real vLLM server on the micro model: the same as transformers, the same twice, and gone when it should be."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.schema import Message, ModelRef
from tasks.serving import (
    ChoiceRequest,
    GenerationRequest,
    Sampling,
    ServingConfig,
    TransientServingError,
    close_all,
    open_generator,
)

pytestmark = pytest.mark.vllm

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "tasks" / "micro" / "model"
MODEL = ModelRef(model="external", version="micro", content_hash="micro")
ANSWERS = ("(A", "(B")
SENTENCE = "bake a cake mend the fence is it ok to paint your boat with sand and vinegar how do I lift this wagon"
WORDS = SENTENCE.split()
LOGPROB_TOLERANCE = 1e-4
"""Between engines, in nats. Measured: 5e-6 in float32."""

OWNER = """
import sys, time
from pathlib import Path
from tests.integration.test_vllm import FOLDER, MODEL
from tasks.serving import ServingConfig, open_generator
with open_generator(MODEL, FOLDER, ServingConfig(scratch=Path(sys.argv[1]))) as generator:
    print(generator.server.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    yield ServingConfig(scratch=tmp_path_factory.mktemp("serving"), num_servers_kept=2)  # beside `local`
    close_all()


@pytest.fixture
def vllm(config):
    with open_generator(MODEL, FOLDER, config) as generator:
        yield generator


@pytest.fixture(scope="module")
def local():
    with open_generator(MODEL, FOLDER, ServingConfig(engine="transformers")) as generator:
        yield generator


def user(num_words: int, seed: int) -> list[Message]:
    words = random.Random(seed).choices(WORDS, k=num_words)
    return [Message(role="user", content=" ".join(words))]


def prompts(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(user(4 + seed % 20, seed), seed) for seed in range(count)]


def questions(count: int) -> list[ChoiceRequest]:
    """Some hundred to some thousand tokens, all with the same beginning, as labels have."""
    start = user(200, 0)[0].content
    return [
        ChoiceRequest([Message(role="user", content=f"{start} {user([5, 60, 300, 900][i % 4], i)[0].content}")])
        for i in range(count)
    ]


def test_vllm_greedy_text_equals_transformers(vllm, local):
    sampling = Sampling(temperature=0, max_tokens=48)
    assert vllm.generate(prompts(40), sampling) == local.generate(prompts(40), sampling)


def test_vllm_label_log_probabilities_equal_transformers_within_tolerance(vllm, local):
    for theirs, ours in zip(vllm.choose(questions(40), ANSWERS), local.choose(questions(40), ANSWERS), strict=True):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=LOGPROB_TOLERANCE)
        assert theirs.num_prompt_tokens == ours.num_prompt_tokens


def test_vllm_label_log_probabilities_are_the_same_bits_in_any_batch(vllm, config):
    asked = questions(40)
    together = vllm.choose(asked, ANSWERS)
    assert vllm.choose(asked[::-1], ANSWERS)[::-1] == together
    assert [vllm.choose([question], ANSWERS)[0] for question in asked[:8]] == together[:8]


def test_vllm_same_seeds_give_same_texts_in_reverse_order(vllm):
    sampling = Sampling(max_tokens=48)
    first = vllm.generate(prompts(160), sampling)
    assert vllm.generate(prompts(160)[::-1], sampling)[::-1] == first
    others = [GenerationRequest(request.messages, request.seed + 1000) for request in prompts(160)]
    assert sum(a.text != b.text for a, b in zip(vllm.generate(others, sampling), first, strict=True)) > 20


def test_vllm_long_seeded_prompts_do_not_crash_it(vllm):
    """Prefilled in chunks, vLLM 0.32 on a CPU dies of them."""
    long = [GenerationRequest(user(1500, seed), seed) for seed in range(8)]
    assert all(g.error is None for g in vllm.generate(long, Sampling(max_tokens=4)))


def test_vllm_prompt_that_does_not_fit_fails_alone(vllm):
    too_long = GenerationRequest(user(20_000, 0), 0)
    good, bad = vllm.generate([prompts(1)[0], too_long], Sampling(max_tokens=4))
    assert good.error is None
    assert "more than the context holds: 16384" in bad.error and bad.text is None


def test_vllm_server_killed_in_a_batch_is_an_error_and_the_next_use_works(config):
    died = pytest.raises(TransientServingError, match=r"died during a batch")
    with open_generator(MODEL, FOLDER, config) as generator, died:
        guard = generator.server.process.pid
        engine = [pid for pid in tree(guard) if "EngineCore" in command(pid)]
        threading.Timer(0.3, os.kill, [engine[0], signal.SIGKILL]).start()
        for _ in range(50):
            generator.generate(prompts(160), Sampling(max_tokens=48))
    with open_generator(MODEL, FOLDER, config) as generator:
        assert generator.generate(prompts(1), Sampling(max_tokens=4))[0].error is None


def test_vllm_owner_killed_leaves_no_server_and_no_engine(tmp_path):
    close_all()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    guard = int(owner.stdout.readline())
    family = [guard, *tree(guard)]
    assert any("api_server" in command(pid) for pid in family) and any("EngineCore" in command(pid) for pid in family)
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 30
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [command(pid) for pid in family if alive(pid)]


def stat(pid: int) -> tuple[str, int]:
    """State and parent of a process."""
    state, parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    return state, int(parent)


def alive(pid: int) -> bool:
    try:
        return stat(pid)[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() if alive(pid) else ""


def tree(root: int) -> list[int]:
    """All processes below `root`."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    parents = {pid: stat(pid)[1] for pid in pids if alive(pid)}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
