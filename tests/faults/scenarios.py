"""What goes wrong during a race: kills, a faulty network, a server that dies; and the controls that must fail."""

import random
import time
from functools import reduce
from operator import add
from pathlib import Path

from tests.faults.rounds import Outcome, Place, race
from tests.servers.access import aws_environment
from tests.servers.proxy import Rates, careless, fault_proxy
from tests.servers.radosgw import radosgw

RATES = {
    "503 25 %": {"503": 0.25},
    "500 15 %": {"500": 0.15},
    "reset 15 %": {"reset": 0.15},
    "answer lost 25 %": {"answer lost": 0.25},
    "upload cut 20 %": {"upload cut": 0.2},
    "download cut 20 %": {"download cut": 0.2},
    "all mixed, kill -9": {
        "503": 0.05, "500": 0.04, "reset": 0.04, "answer lost": 0.08, "upload cut": 0.05, "download cut": 0.05,
    },
}  # fmt: skip
"""Share of the requests that each fault strikes, where it can."""


def races(place: Place, num_rounds: int, randomness: random.Random, kills: int = 0) -> Outcome:
    return reduce(add, [race(place, randomness, kills) for _ in range(num_rounds)])


def through_proxy(place: Place, name: str, randomness: random.Random) -> Outcome:
    """A race through a proxy with the rates of that name."""
    plan = Rates(RATES[name], randomness.getrandbits(32))
    with fault_proxy(place.environment["AWS_ENDPOINT_URL"], plan) as proxy:
        found = race(place, randomness, kills=2 if "kill" in name else 0, endpoint=proxy.endpoint)
    return found + Outcome(rounds=0, injected=proxy.injected.total())


def killed_server(scratch: Path, randomness: random.Random) -> Outcome:
    """All daemons of a Ceph that writes to disk are killed under the writers, and started again."""
    with radosgw("bluestore") as server:
        place = Place("radosgw", "s3://faults/killed", aws_environment(server.endpoint, scratch))
        delay = randomness.uniform(2, 4)

        def kill_and_restart() -> None:
            time.sleep(delay)
            server.kill()
            time.sleep(0.5)
            server.restart()

        found = race(place, randomness, num_versions=16, meanwhile=kill_and_restart)
    return found + Outcome(rounds=0, injected=1)


def control_unconditional(place: Place, randomness: random.Random) -> Outcome:
    """A mutant store that writes manifests without asking whether they exist: must break an invariant."""
    return race(place, randomness, unconditional=True)


def control_careless(place: Place, randomness: random.Random) -> Outcome:
    """A server that overwrites in spite of If-None-Match: must break an invariant."""
    with fault_proxy(place.environment["AWS_ENDPOINT_URL"], careless) as proxy:
        found = race(place, randomness, endpoint=proxy.endpoint)
    return found + Outcome(rounds=0, injected=proxy.injected.total())
