"""Several servers of one model, of which some misbehave: every row is done once, in order, by those that are well."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.serving import ServingConfig, ServingError, TransientServingError
from tasks.serving.pool import PATIENCE, Pool
from tasks.serving.replica import Patience
from tasks.serving.vllm_client import COMPLETIONS, Rejected
from tests.replicas import FakeReplica, check, fake_replicas

QUICK = Patience(health=0.05, ping=0.3, check=0.6, longest=0.2, look_up=0.05)


@pytest.fixture
def replicas():
    with fake_replicas() as made:
        yield made


def pool_of(servers: list[FakeReplica], patience: Patience = QUICK, **settings) -> Pool:
    settings = {"max_concurrency": 4, "watchdog_seconds": 20, **settings}
    pool = Pool(ServingConfig(url=" ".join(server.url for server in servers), **settings), check, patience)
    pool.open()
    return pool


def ask(pool: Pool, count: int) -> None:
    """Every row is answered, in order."""
    assert pool.post_all(COMPLETIONS, [{"n": n} for n in range(count)]) == [{"echo": n} for n in range(count)]


def ask_before_any_limit(pool: Pool, count: int) -> None:
    """For a pool whose watchdog has a hundred seconds: a batch that needs it fails here."""
    ThreadPoolExecutor(1).submit(ask, pool, count).result(30)


def until_it_is_well(pool: Pool, server: FakeReplica) -> None:
    """Batch after batch, until the server has done a row after its last check."""
    for _ in range(200):
        if server.rows and server.seen[-1] != "check":
            return
        ask(pool, 40)
    raise AssertionError(f"{server.url} gets no rows: {pool.describe()}")


def test_pool_rows_are_shared_and_each_is_asked_once(replicas):
    servers = replicas.start(latency=0.002)
    servers[0].latency = 0.05
    ask(pool_of(servers, PATIENCE), 120)
    assert sorted(row for server in servers for row in server.rows) == list(range(120))
    assert 0 < len(servers[0].rows) < min(len(server.rows) for server in servers[1:]), "the slow one has more open"
    assert all(server.most_open == 4 for server in servers), "the bound is each server's"


def test_pool_few_rows_go_to_the_least_busy(replicas):
    servers = replicas.start(latency=0.05)
    ask(pool_of(servers, PATIENCE), 6)
    assert [server.most_open for server in servers] == [2, 2, 2]


def test_pool_no_row_before_the_check(replicas):
    servers = replicas.start()
    ask(pool_of(servers), 30)
    assert all(server.seen[0] == "check" for server in servers)


def test_pool_nothing_to_ask_gives_nothing(replicas):
    assert pool_of(replicas.start()).post_all(COMPLETIONS, []) == []


def test_pool_one_that_dies_is_replaced_by_the_others(replicas):
    servers = replicas.start(latency=0.002)
    servers[1].plan = {6: FakeReplica.die}
    ask(pool_of(servers, num_retries=1), 60)
    assert len(servers[1].rows) < 6
    ask(pool_of([servers[0], servers[2], servers[1]]), 60)  # begins with a dead one


def test_pool_one_that_is_back_is_checked_again_before_it_gets_rows(replicas):
    servers = replicas.start(latency=0.002)
    servers[1].plan = {6: FakeReplica.die}
    pool = pool_of(servers)
    ask(pool, 60)
    servers[1].seen.clear()
    servers[1].model += " again"
    replicas.do(servers[1].start())
    until_it_is_well(pool, servers[1])
    assert servers[1].seen[0] == "check"


def test_pool_one_that_comes_back_with_another_model_gets_no_rows(replicas):
    servers = replicas.start(latency=0.002)
    servers[1].plan = {6: FakeReplica.die}
    pool = pool_of(servers)
    ask(pool, 60)
    servers[1].seen.clear()
    servers[1].weights = "others"
    replicas.do(servers[1].start())
    while "check" not in servers[1].seen:
        ask(pool, 40)
    ask(pool, 40)
    assert not servers[1].rows and "serves another model: others" in pool.describe()


def test_pool_one_that_is_another_since_the_last_batch_is_found_before_a_row(replicas):
    """Nobody was connected to it, so no connection broke."""
    servers = replicas.start()
    pool = pool_of(servers)
    servers[2].weights = "others"
    asyncio.run(asyncio.sleep(2 * QUICK.health))  # what is known of a replica is that old
    ask(pool, 60)
    assert not servers[2].rows


def freeze(server: FakeReplica) -> None:
    server.mode = "hang"


def wedge(server: FakeReplica) -> None:
    server.mode = "wedge"


def test_pool_one_that_freezes_is_noticed_by_its_health_and_others_do_its_rows(replicas):
    servers = replicas.start(latency=0.002)
    servers[0].plan = {6: freeze}
    pool = pool_of(servers, watchdog_seconds=100)
    ask_before_any_limit(pool, 60)
    assert len(servers[0].rows) < 6
    servers[0].mode, servers[0].seen = "ok", []
    until_it_is_well(pool, servers[0])


def test_pool_one_that_fails_a_row_and_then_its_check_is_not_waited_for(replicas):
    servers = replicas.start(latency=0.002)

    def break_one_connection(server: FakeReplica) -> None:
        server.weights, server.mode = "others", "wedge"
        next(iter(server.open)).abort()

    servers[0].plan = {6: break_one_connection}
    ask_before_any_limit(pool_of(servers, watchdog_seconds=100), 60)


def test_pool_one_that_is_well_but_ends_nothing_is_noticed_by_the_watchdog(replicas):
    servers = replicas.start(latency=0.002)
    servers[0].plan = {6: wedge}
    ask(pool_of(servers, watchdog_seconds=1.2), 60)
    assert len(servers[0].rows) < 6


def test_pool_request_that_takes_too_long_at_one_is_done_by_another(replicas):
    servers = replicas.start(2, latency=0.002)
    servers[0].plan = {3: wedge}
    ask(pool_of(servers, request_seconds=0.8), 20)


def test_pool_overload_costs_no_row_an_attempt_and_the_server_gets_what_it_can_hold(replicas):
    servers = replicas.start(2, latency=0.005, capacity=2)
    ask(pool_of(servers, num_retries=0, max_concurrency=16), 80)
    assert all(server.num_refused for server in servers) and max(server.most_open for server in servers) == 2
    assert sum(server.num_refused for server in servers) < 80, "refused rows are not thrown at it again and again"


def test_pool_503_for_a_while_goes_to_others_and_ends(replicas):
    servers = replicas.start(latency=0.002)
    servers[0].mode, servers[0].headers = 503, {"Retry-After": "0"}

    def well(server: FakeReplica) -> None:
        server.mode = "ok"

    servers[0].plan = {8: well}
    ask(pool_of(servers, num_retries=0), 300)
    assert servers[0].rows


def test_pool_503_for_ever_from_all_is_a_failed_batch_and_not_a_rows(replicas):
    servers = replicas.start(2, headers={"Retry-After": "3600"})
    pool = pool_of(servers, num_retries=0, watchdog_seconds=0.5)
    for server in servers:
        server.mode = 503
    with pytest.raises(TransientServingError, match=r"8 of 8 requests are open.*left alone for 3\d\d\d s"):
        ask(pool, 8)
    assert max(server.num_rows for server in servers) <= 4, "none is asked before it said so"


def test_pool_flapping_servers_lose_no_row(replicas):
    servers = replicas.start(latency=0.002)

    def blink(server: FakeReplica) -> None:
        async def off_and_on() -> None:
            await server.end()
            await server.start()

        server.later = server.loop.create_task(off_and_on())

    for server, first in zip(servers, (5, 9, 14), strict=True):
        server.plan = {first + 25 * i: blink for i in range(4)}
    ask(pool_of(servers), 200)


def test_pool_all_dead_names_each_and_why(replicas):
    servers = replicas.start(latency=0.002)
    pool = pool_of(servers, watchdog_seconds=1.5)
    for number, server in enumerate(servers):
        server.plan = {5: FakeReplica.die if number else freeze}
    with pytest.raises(TransientServingError, match=r"(?s)no server is left for \d+ of 60 requests") as raised:
        ask(pool, 60)
    assert all(server.url in str(raised.value) for server in servers)
    assert str(raised.value).count("no healthy vLLM server") >= 2 and "ClientConnectorError" in str(raised.value)


def test_pool_batch_after_all_were_dead_uses_those_that_are_back(replicas):
    servers = replicas.start(latency=0.002)
    pool = pool_of(servers, watchdog_seconds=0.6)
    for server in servers:
        server.plan = {5: FakeReplica.die}
    with pytest.raises(TransientServingError):
        ask(pool, 60)
    replicas.do(servers[2].start())
    ask(pool, 60)


def test_pool_wrong_model_on_one_of_three_is_an_error_before_any_row(replicas):
    servers = replicas.start()
    servers[1].weights = "others"
    with pytest.raises(ServingError, match=f"{servers[1].url} serves another model: others"):
        pool_of(servers)
    assert not any(server.rows for server in servers)


def test_pool_none_there_at_the_start_is_an_error_that_names_each(replicas):
    servers = replicas.start(2)
    for server in servers:
        replicas.do(server.end())
    with pytest.raises(ServingError, match=f"(?s){servers[0].url}: no healthy.*{servers[1].url}: no healthy"):
        pool_of(servers)


def test_pool_row_that_fails_everywhere_ends_within_its_budget(replicas):
    servers = replicas.start(latency=0.002, refuses={3: 500})
    with pytest.raises(TransientServingError, match=r"gave up after 3 attempts.*HTTP 500.*because 3"):
        ask(pool_of(servers, num_retries=2), 30)


def test_pool_row_that_fails_at_one_is_done_by_another(replicas):
    servers = replicas.start(latency=0.002)
    servers[0].refuses = servers[1].refuses = dict.fromkeys(range(30), 500)
    ask(pool_of(servers, num_retries=2), 30)
    assert sorted(servers[2].rows) == list(range(30))
    assert servers[0].num_rows < 30 > servers[1].num_rows, "one that fails again and again is set aside"


def test_pool_bad_request_is_the_rows_error_and_not_repeated(replicas):
    servers = replicas.start(refuses={1: 400})
    answers = pool_of(servers, PATIENCE).post_all(COMPLETIONS, [{"n": n} for n in range(3)])
    assert isinstance(answers[1], Rejected) and "because 1" in answers[1].reason
    assert [answers[0], answers[2]] == [{"echo": 0}, {"echo": 2}]
    assert sum(server.num_rows for server in servers) == 3


@pytest.mark.parametrize("trouble", ["html", "abort", "reset", 404, 401])
def test_pool_one_that_answers_what_no_server_of_ours_would_is_set_aside(replicas, trouble):
    servers = replicas.start(latency=0.002)
    servers[0].plan = {4: lambda server: setattr(server, "mode", trouble)}
    ask(pool_of(servers), 60)
    assert len(servers[0].rows) < 4


def test_pool_name_with_several_addresses_is_a_server_at_each_and_new_ones_are_taken_in(replicas):
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    servers = [FakeReplica(replicas.loop, latency=0.002) for _ in hosts]
    for host, server in zip(hosts, servers, strict=True):
        server.port = servers[0].port
        replicas.do(server.start(host))
    replicas.all += servers
    known = hosts[:2]
    config = ServingConfig(url=f"dns+http://vllm.test:{servers[0].port}", max_concurrency=4)
    pool = Pool(config, check, QUICK, look_up=lambda host: known if host == "vllm.test" else [])
    pool.open()
    ask(pool, 40)
    assert servers[0].rows and servers[1].rows and not servers[2].rows
    known[:] = hosts[1:]
    replicas.do(servers[0].end())
    until_it_is_well(pool, servers[2])
    for _ in range(200):
        if len(pool.replicas) == 2:
            break
        ask(pool, 40)
    assert {replica.url for replica in pool.replicas} == {f"http://{host}:{servers[0].port}" for host in hosts[1:]}


def test_pool_name_without_address_is_an_error():
    def nobody(host: str) -> list[str]:
        raise OSError(f"{host}: unknown")

    with pytest.raises(ServingError, match=r"a name has no address: vllm\.test: unknown"):
        Pool(ServingConfig(url="dns+http://vllm.test:8000"), check, look_up=nobody)


def test_pool_works_inside_a_running_loop(replicas):
    servers = replicas.start()

    async def outer() -> None:
        ask(pool_of(servers), 20)

    asyncio.run(outer())
