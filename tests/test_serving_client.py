"""The HTTP client against a server that misbehaves in the ways that real ones do."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from tasks.serving import ServingConfig, ServingError, TransientServingError
from tasks.serving.vllm_client import Rejected, post_all

QUICK = ServingConfig(num_retries=3, watchdog_seconds=20)


@dataclass
class Server:
    """Answers `{"echo": n}` to `{"n": n}` unless `script` says otherwise for this n and attempt."""

    script: dict = field(default_factory=dict)
    reason_of_death: str | None = None
    url: str = ""
    seen: list = field(default_factory=list)
    open_requests: int = 0
    most_open: int = 0

    def death(self):
        return self.reason_of_death

    async def answer(self, request):
        n = (await request.json())["n"]
        attempt = self.seen.count(n)
        self.seen.append(n)
        self.open_requests += 1
        self.most_open = max(self.most_open, self.open_requests)
        try:
            steps = self.script.get(n, [])
            return await self.act(request, n, steps[attempt] if attempt < len(steps) else 200)
        finally:
            self.open_requests -= 1

    async def act(self, request, n, step):
        if step == "reset":
            request.transport.abort()
        elif step == "html":
            return web.Response(text="<html>proxy</html>")
        elif isinstance(step, float):
            await asyncio.sleep(step)
        elif step != 200:
            return web.json_response({"error": {"message": f"because {n}"}}, status=step)
        return web.json_response({"echo": n})


@pytest.fixture
def server():
    server, loop, started = Server(), asyncio.new_event_loop(), threading.Event()

    async def serve():
        app = web.Application()
        app.router.add_post("/v1/completions", server.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        started.set()

    def run():
        loop.create_task(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    yield server
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def ask(server, numbers, config=QUICK):
    return post_all(server, "/v1/completions", [{"n": n} for n in numbers], config)


def test_post_all_answers_come_in_the_order_asked_however_they_arrive(server):
    server.script = {n: [0.2 - 0.02 * n] for n in range(10)}
    assert ask(server, range(10)) == [{"echo": n} for n in range(10)]


def test_post_all_nothing_to_ask_gives_nothing(server):
    assert ask(server, []) == []


@pytest.mark.parametrize("failure", [429, 500, 503, "reset"])
def test_post_all_passing_failure_is_asked_again(server, failure):
    server.script = {1: [failure, failure]}
    assert ask(server, range(3)) == [{"echo": n} for n in range(3)]
    assert sorted(server.seen) == [0, 1, 1, 1, 2]


def test_post_all_slow_request_is_given_up_and_asked_again(server):
    server.script = {1: [5.0]}
    assert ask(server, range(2), ServingConfig(request_seconds=0.3)) == [{"echo": 0}, {"echo": 1}]


def test_post_all_lasting_failure_fails_the_batch_and_says_how(server):
    server.script = {1: [503] * 10}
    with pytest.raises(TransientServingError, match=r"gave up after 2 attempts.*HTTP 503.*because 1"):
        ask(server, range(3), ServingConfig(num_retries=1))


def test_post_all_bad_request_is_the_rows_error_and_not_repeated(server):
    server.script = {1: [400] * 10}
    first, second, third = ask(server, range(3))
    assert isinstance(second, Rejected) and "because 1" in second.reason
    assert (first, third) == ({"echo": 0}, {"echo": 2})
    assert server.seen.count(1) == 1


@pytest.mark.parametrize("step", [401, 404, "html"])
def test_post_all_server_of_another_kind_is_an_error_of_the_configuration(server, step):
    server.script = {1: [step] * 10}
    with pytest.raises(ServingError, match=r"404|401|proxy"):
        ask(server, range(3))
    assert server.seen.count(1) == 1


def test_post_all_requests_in_flight_stay_within_the_bound_and_reach_it(server):
    server.script = {n: [0.02] for n in range(40)}
    ask(server, range(40), ServingConfig(max_concurrency=4))
    assert server.most_open == 4


def test_post_all_server_that_hangs_is_noticed_by_the_watchdog(server):
    server.script = {1: [60.0]}
    started = time.monotonic()
    with pytest.raises(TransientServingError, match=r"1 of 3 requests are open.*watchdog_seconds"):
        ask(server, range(3), ServingConfig(watchdog_seconds=0.5))
    assert time.monotonic() - started < 5


def test_post_all_watchdog_lets_a_slow_batch_go_on_while_requests_end(server):
    server.script = {n: [0.3] for n in range(6)}
    assert len(ask(server, range(6), ServingConfig(watchdog_seconds=0.8, max_concurrency=1))) == 6


def test_post_all_dead_server_ends_the_batch_with_its_reason(server):
    server.script = {1: [60.0]}
    threading.Timer(0.3, setattr, [server, "reason_of_death", "exited with code 0"]).start()
    with pytest.raises(TransientServingError, match="exited with code 0"):
        ask(server, range(3))


def test_post_all_works_inside_a_running_loop(server):
    async def outer():
        return ask(server, range(3))

    assert asyncio.run(outer()) == [{"echo": n} for n in range(3)]


def test_post_all_inside_a_running_loop_raises_the_same_errors(server):
    server.script = {1: [404]}

    async def outer():
        return ask(server, range(3))

    with pytest.raises(ServingError, match="404"):
        asyncio.run(outer())
