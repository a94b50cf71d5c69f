"""From publishing to the aligned model with a worker's processes: the commands as people type them.

Answers are clicked where there is a browser; elsewhere they go to the API as its form would send them.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from constitutions import load_constitution
from tests.amended import Town
from tests.browser.pages import CHROMIUM, browser
from tests.prefect_stack import POOL, ROOT, PrefectStack, eventually, kill


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with (
        PrefectStack(tmp_path_factory.mktemp("stack")) as stack,
        temporary_settings({PREFECT_API_URL: stack.url}),
    ):
        made = Town(tmp_path_factory.mktemp("town"), "micro", "flows.align", POOL)
        made.listen()
        yield made


@pytest.fixture
def answer(town: Town) -> Iterator[Callable[..., object]]:
    """Answers a run that asks, by the form's fields."""
    if not CHROMIUM.exists():
        yield town.answer
        return
    with browser(PREFECT_API_URL.value().removesuffix("/api")) as pages:

        def click(run: UUID, **fields: str) -> None:
            pages.open_run(str(run)).resume({name.capitalize(): value for name, value in fields.items()})

        yield click


def publish(town: Town, text: str) -> str:
    """`./solon constitution publish` of the micro constitution with these words more in a question."""
    micro = (ROOT / "constitutions" / "micro.yaml").read_text()
    question = load_constitution(ROOT / "constitutions" / "micro.yaml").principles[0].comparison_question
    file = town.folder / "micro.yaml"
    file.write_text(micro.replace(question, f"{question} {text}".strip()))
    done = solon("publish", str(file), "--store", town.store.uri, PREFECT_API_URL=PREFECT_API_URL.value())
    assert done.returncode == 0, done.stderr
    return done.stdout


def solon(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows", "constitution", *command],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "500", **environment},
        capture_output=True,
        text=True,
    )


def in_hand(town: Town, move: int):
    """The run that has this move in hand, once there is one."""
    eventually(lambda: len(town.changes("micro")) >= move, f"nothing follows move {move}", 300)
    return town.changes("micro")[-1]


@pytest.mark.long
def test_publish_to_aligned_there_and_back(town, answer, capsys):
    assert "constitution.changed sent to" in publish(town, "")
    started = time.monotonic()
    first = in_hand(town, 1)
    eventually(lambda: bool(town.artifact(first.id, "plan")), "no plan", 300)
    with capsys.disabled():
        print(f"\nfrom the end of publish to its plan: {time.monotonic() - started:.1f} s")
    town.asked(first.id)
    assert town.answer(first.id, decision="perhaps", by="anna")["status"] == "REJECT"
    answer(first.id, decision="approve", by="anna", note="the first")
    town.reaches(first.id, "Aligned", 900)

    assert "no event: nothing moved" in publish(town, "")
    assert "reworded (comparison)" in publish(town, "Truly?")
    second = in_hand(town, 2)
    town.asked(second.id)
    assert "reworded (comparison)" in town.form(second.id) and "| label |" in town.form(second.id)
    answer(second.id, decision="approve", by="anna")
    town.reaches(second.id, "Aligned", 900)

    publish(town, "Really?")
    third = in_hand(town, 3)
    town.asked(third.id)
    answer(third.id, decision="reject", by="bert", note="too many words")
    town.reaches(third.id, "Rejected")
    assert "too many words" in town.artifact(third.id, "decision")["data"]

    publish(town, "")
    fourth = in_hand(town, 4)
    assert "Everything is there" in town.reaches(fourth.id, "Planned").state.message
    assert len(town.runs(town.align)) == 2
    assert (len(town.store.versions("labels")), len(town.store.versions("revisions"))) == (2, 1)


def test_documented_post_starts_the_flow(town):
    town.publish(load_constitution(ROOT / "constitutions" / "harmlessness.yaml"))
    (block,) = re.findall(r"```sh\n(curl [^`]+)```", (ROOT / "docs" / "amendments.md").read_text())
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_API_AUTH_STRING": "any:one"}
    subprocess.run(["bash", "-ec", block], env=environment, check=True)
    eventually(lambda: bool(town.changes("harmlessness")), "the event started nothing", 300)
    town.asked(town.changes("harmlessness")[0].id)


def test_publish_to_a_server_with_a_password(tmp_path):
    stack = PrefectStack(tmp_path, {"PREFECT_SERVER_API_AUTH_STRING": "admin:open-sesame"})
    command = ("publish", "constitutions/micro.yaml", "--store", str(tmp_path / "store"))
    try:
        stack.start_server()
        refused = solon(*command, PREFECT_API_URL=stack.url, PREFECT_API_AUTH_STRING="admin:wrong-word")
        assert refused.returncode == 1 and "401" in refused.stdout and "send it with --announce" in refused.stdout
        sent = solon(*command, "--announce", PREFECT_API_URL=stack.url, PREFECT_API_AUTH_STRING="admin:open-sesame")
        assert sent.returncode == 0 and "constitution.changed sent to" in sent.stdout
        assert all(word not in refused.stdout + sent.stdout for word in ("wrong-word", "open-sesame"))
    finally:
        kill(stack.processes())
