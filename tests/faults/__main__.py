"""The fault suite: `python -m tests.faults [--seed N] [--only WORD]`, what `make test-faults` runs.

Prints a line for each place and fault; exit code 1 where an invariant broke, or where a control that must break
one did not.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from infra.debian_tools import Missing, fetch
from tests.faults import machine
from tests.faults.rounds import Outcome, Place
from tests.faults.scenarios import RATES, control_careless, control_unconditional, killed_server, races, through_proxy
from tests.servers.access import aws_environment
from tests.servers.moto import moto
from tests.servers.radosgw import radosgw

HEAD = "place    fault                  rounds killed injected commits errors violations seconds"
Line = tuple[str, str, bool, Callable[[random.Random], Outcome]]
"""Place, fault, whether violations must be found, and how to run it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the same faults at the same requests of each round")
    parser.add_argument("--only", default="", help="only lines that hold this word, e.g. 'moto' or 'kill'")
    options = parser.parse_args()
    failed, missing = 0, list[str]()
    with ExitStack() as stack:
        lines = _lines(stack, missing)
        print(f"seed {options.seed}\n{HEAD}", flush=True)
        for place, fault, is_control, run in lines:
            if options.only in f"{place} {fault}":
                failed += _report(place, fault, is_control, run, options.seed, missing)
    for reason in missing:
        print(f"not run: {reason}")
    print(f"{failed} of these failed" if failed else "all invariants held, and every control broke one")
    return 1 if failed else 0


def _report(
    place: str, fault: str, is_control: bool, run: Callable[[random.Random], Outcome], seed: int, missing: list[str]
) -> int:
    """Run and print one line; 1 where it failed."""
    started = time.monotonic()
    try:
        found = run(random.Random(f"{seed} {place} {fault}"))
    except Missing as error:
        missing.append(f"{place}, {fault}: {error}")
        return 0
    numbers = f"{found.rounds:6} {found.killed:6} {found.injected:8} {found.commits:7} {found.errors:6}"
    seconds = time.monotonic() - started
    print(f"{place:8} {fault:22} {numbers} {len(found.violations):10} {seconds:7.1f}", flush=True)
    if is_control:
        if not found.violations:
            print("         the control broke no invariant: these rounds would not notice a careless store")
        return 0 if found.violations else 1
    for violation in found.violations[:5]:
        print(f"         VIOLATION {violation}")
    return 1 if found.violations else 0


def _lines(stack: ExitStack, missing: list[str]) -> Iterator[Line]:
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="solon-faults-")))
    folder = Place("folder", str(scratch / "store"), {})
    places = [folder, Place("moto", "s3://faults/moto", aws_environment(stack.enter_context(moto()), scratch))]
    try:
        fetch("ceph")
    except Missing as error:
        missing.append(f"everything on radosgw: {error}")
    else:
        server = stack.enter_context(radosgw())
        places.append(Place("radosgw", "s3://faults/radosgw", aws_environment(server.endpoint, scratch)))
        yield "radosgw", "server kill -9", False, lambda randomness: killed_server(scratch, randomness)
    for place in places:
        yield from _lines_of(place, num_rounds=3 if place is folder else 1)
    yield "folder", "disk full", False, lambda randomness: machine.disk_full(512)
    yield (
        "folder",
        "I/O errors 5 %",
        False,
        lambda randomness: machine.io_errors(folder, 0.05, randomness.getrandbits(32)),
    )
    yield "folder", "CONTROL unconditional", True, lambda randomness: control_unconditional(folder, randomness)
    yield "moto", "CONTROL careless", True, lambda randomness: control_careless(places[1], randomness)


def _lines_of(place: Place, num_rounds: int) -> Iterator[Line]:
    yield place.name, "race", False, lambda randomness: races(place, num_rounds, randomness)
    yield place.name, "kill -9", False, lambda randomness: races(place, num_rounds, randomness, kills=6)
    if place.environment:
        for name in RATES:
            yield place.name, name, False, lambda randomness, name=name: through_proxy(place, name, randomness)
    for offset in machine.CLOCKS:
        yield place.name, f"clock {offset}", False, lambda _, offset=offset: machine.wrong_clock(place, offset)


if __name__ == "__main__":
    sys.exit(main())
