"""The rules by which one of several servers is trusted, without a clock; and how a URL names several."""

import pytest

from tasks.serving import ServingConfig
from tasks.serving.addresses import expand
from tasks.serving.replica import MAX_FAILURES, Patience, Replica

PATIENCE = Patience(health=5, longest=30)


def replica(most_open: int = 8, num_open: int = 0) -> Replica:
    made = Replica("http://a:1", most_open)
    made.take_back(100.0, "model")
    for row in range(num_open):
        made.sent(row, 100.0)
    return made


def test_replica_has_no_room_before_its_check_nor_above_its_bound():
    assert not Replica("http://a:1", 8).has_room(0)
    assert replica(8, num_open=7).has_room(100) and not replica(8, num_open=8).has_room(100)


def test_replica_that_refuses_may_have_as_many_as_it_kept():
    one = replica(8, num_open=8)
    for row in range(5, 8):
        one.open.discard(row)
        one.refused(100.0, None)
    assert not one.has_room(100.0) and len(one.open) == 5
    one.open.discard(0)
    one.answered(101.0)
    assert one.has_room(101.0), "one of its own has ended"


def test_replica_that_refuses_while_it_has_nothing_of_ours_is_asked_after_a_pause_that_grows():
    one = replica()
    one.refused(100.0, None)
    first = one.waits_until - 100
    for _ in range(4):
        one.refused(100.0, None)
    assert 0 < first < 1 < 2 < one.waits_until - 100 <= 8
    assert one.aside is None, "it is busy, not broken"


def test_replica_is_left_alone_as_long_as_it_asked():
    one = replica(8, num_open=2)
    one.refused(100.0, 7.0)
    one.open.clear()
    assert not one.has_room(106.9) and one.has_room(107.0)


def test_replica_gets_more_again_while_it_answers():
    one = replica(8, num_open=8)
    one.open.clear()
    one.refused(100.0, 0.0)
    assert int(one.limit) == 1
    for step in range(100):
        one.answered(101.0 + step)
    assert one.limit == 8


def test_replica_some_errors_are_the_rows_and_many_in_a_row_are_its_own():
    one = replica()
    assert not any(one.failed(100.0) for _ in range(MAX_FAILURES - 1))
    one.answered(100.0)
    assert [one.failed(100.0) for _ in range(MAX_FAILURES)] == [False] * (MAX_FAILURES - 1) + [True]


def test_replica_first_check_is_at_once_and_the_next_ones_after_pauses_that_double_to_a_limit():
    one = replica()
    pauses = []
    for _ in range(6):
        one.set_aside(200.0, "refused", PATIENCE)
        pauses.append(one.next_check - 200.0)
    assert pauses == [0, 5, 10, 20, 30, 30]


def test_replica_that_was_well_for_long_has_its_credit_back_and_a_flapping_one_has_not():
    one = replica()
    for now in (101.0, 102.0):
        one.set_aside(now, "reset", PATIENCE)
        one.take_back(now, "model")
    assert one.strikes == 2
    one.set_aside(140.0, "reset", PATIENCE)
    assert one.strikes == 1


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        (None, ()),
        ("http://gpu:8000", ("http://gpu:8000",)),
        ("https://gpu:8000/v1/", ("https://gpu:8000",)),
        ("http://a:8000  http://b:8000/v1\n", ("http://a:8000", "http://b:8000")),
        ("dns+http://vllm.solon.svc:8000", ("dns+http://vllm.solon.svc:8000",)),
    ],
)
def test_url_names_these_servers(url, urls):
    assert ServingConfig(url=url).urls == urls


@pytest.mark.parametrize("url", ["gpu:8000", "http://a:1,b:2 c:3", "dns+https://vllm:8000", "ftp://a", ""])
def test_url_that_names_no_server_is_refused(url):
    with pytest.raises(ValueError, match="url"):
        ServingConfig(url=url)


def test_url_that_names_one_twice_is_refused():
    with pytest.raises(ValueError, match=r"http://a:8000 stands there twice"):
        ServingConfig(url="http://a:8000 http://a:8000/v1/")


def test_identity_of_texts_does_not_say_how_many_servers_wrote_them():
    assert ServingConfig(url="http://a:1 http://b:1").identity() == ServingConfig().identity()


def test_expand_names_stand_for_each_of_their_addresses_and_urls_for_themselves():
    urls = ["http://localhost:8000", "dns+http://vllm:8000/proxy"]
    found = expand(urls, lambda host: {"vllm": ["10.0.0.1", "fd00::1"]}[host])
    assert found == ["http://localhost:8000", "http://10.0.0.1:8000/proxy", "http://[fd00::1]:8000/proxy"]
