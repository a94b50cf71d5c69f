"""How much faster three replicas are than one, with servers of a fixed latency that take so many requests at once.

    .venv/bin/python -m benchmarks.replicas

The servers are small aiohttp processes: what is measured is the client, not a model. One is asked as a single `url`,
three as one text with blanks. Prints rows a second, the best of three batches of each, and the ratio.
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from aiohttp import ClientSession, web

from tasks.processes import free_port
from tasks.serving import ServingConfig
from tasks.serving.pool import Pool
from tasks.serving.probe import RemoteServer, get_json
from tasks.serving.vllm_client import COMPLETIONS, post_all
from tasks.serving.vllm_engine import Post

ANSWER = {"choices": [{"finish_reason": "stop", "token_ids": [1, 2, 3]}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds of each request")
    parser.add_argument("--at-once", type=int, default=32, help="requests that a server works on; others wait there")
    parser.add_argument("--rows", type=int, default=2304)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.latency, options.at_once)
        return
    with servers(3, options.latency, options.at_once) as urls:
        one = rows_a_second(to_one(urls[0], options.at_once), options.rows // 3)
        three = rows_a_second(to_all(urls, options.at_once), options.rows)
    ideal = options.at_once / options.latency
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {sys.version.split()[0]}"
    )
    print(f"each server: {options.at_once} at once, {options.latency:g} s each, so {ideal:.0f} rows/s at most")
    print(f"1 server  {one:7.1f} rows/s\n3 servers {three:7.1f} rows/s\nratio {three / one:.2f}")


def to_one(url: str, at_once: int) -> Post:
    return partial(post_all, RemoteServer(url, "model", 0), COMPLETIONS, config=ServingConfig(max_concurrency=at_once))


def to_all(urls: Sequence[str], at_once: int) -> Post:
    async def unchecked(session: ClientSession, url: str) -> str:
        return "model"

    pool = Pool(ServingConfig(url=" ".join(urls), max_concurrency=at_once), unchecked)
    pool.open()
    return partial(pool.post_all, COMPLETIONS)


def rows_a_second(post: Post, num_rows: int) -> float:
    payloads = [{"model": "model", "prompt": list(range(200)), "seed": row} for row in range(num_rows)]
    return num_rows / min(seconds_of(post, payloads) for _ in range(3))


def seconds_of(post: Post, payloads: Sequence[dict[str, object]]) -> float:
    started = time.monotonic()
    assert len(post(payloads)) == len(payloads)
    return time.monotonic() - started


@contextmanager
def servers(count: int, latency: float, at_once: int) -> Iterator[list[str]]:
    """URLs of servers that run meanwhile, each in a process of its own."""
    ports = [free_port() for _ in range(count)]
    command = [sys.executable, "-m", "benchmarks.replicas", f"--latency={latency}", f"--at-once={at_once}"]
    running = [subprocess.Popen([*command, f"--serve={port}"]) for port in ports]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        while not all(get_json(f"{url}/health", 1) for url in urls):
            time.sleep(0.1)
        yield urls
    finally:
        for process in running:
            process.terminate()
            process.wait()


def serve(port: int, latency: float, at_once: int) -> None:
    slots = asyncio.Semaphore(at_once)

    async def completion(request: web.Request) -> web.Response:
        await request.read()
        async with slots:
            await asyncio.sleep(latency)
        return web.json_response(ANSWER)

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.add_routes([web.post(COMPLETIONS, completion), web.get("/health", health)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main()
