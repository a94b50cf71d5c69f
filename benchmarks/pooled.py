"""Rates of each policy pooled over the micro runs in a store, with 95 % intervals by bootstrap over errands.

    make demo && make demo SEED=1 && make demo SEED=2
    .venv/bin/python -m benchmarks.pooled

Runs are told apart by seed. A store with two runs of a seed, as `benchmarks.controls` leaves it, is refused: which of
them was meant cannot be told. What `benchmarks.algorithms` judged is no run, and left aside.
"""

import argparse

from tasks.bootstrap import Interval, bootstrap_mean
from tasks.evaluation.judged import MEASURES
from tasks.schema import Judgement
from tasks.store import Store
from tasks.store.identity import table_to_rows

SHOWN = ("harmful_compliance", "benign_helpfulness", "evasion", "over_refusal")
POLICIES = ("base", "sl", "rl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default=".solon/store")
    by_seed = read_judgements(Store.open(parser.parse_args().store))
    print(f"seeds: {', '.join(map(str, sorted(by_seed)))}")
    rows = [row for seed in sorted(by_seed) for row in by_seed[seed]]
    for measure in SHOWN:
        for group in ("all", "seen", "unseen"):
            cells = [show(pooled(rows, measure, policy, group)) for policy in POLICIES]
            print(f"{measure:19s} {group:7s} " + "   ".join(f"{p} {c}" for p, c in zip(POLICIES, cells, strict=True)))


def read_judgements(store: Store) -> dict[int, list[Judgement]]:
    """The judgements of each seed.

    Raises: SystemExit: a seed has several, or there are none.
    """
    runs = {f"samples.{policy}" for policy in POLICIES}
    manifests = [m for m in store.versions("judgements") if runs <= set(m.derivation.inputs)]
    seeds = [m.derivation.seed for m in manifests]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice or not seeds:
        found = f"several runs of seed {', '.join(map(str, twice))}" if twice else "no run"
        raise SystemExit(f"pooled: {store.uri} holds {found}, expected one of each seed; give another --store")
    return {m.derivation.seed: table_to_rows(store.read(m.dataset_ref()), Judgement) for m in manifests}


def pooled(rows: list[Judgement], measure: str, policy: str, group: str) -> Interval:
    kind, value = MEASURES[measure]
    chosen = [r for r in rows if r.policy == policy and r.kind == kind and group in ("all", r.group)]
    pairs = [(v, r.unit) for r in chosen if (v := value(r)) is not None]
    return bootstrap_mean([v for v, _ in pairs], [unit for _, unit in pairs])


def show(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] n={interval.num_samples}"


if __name__ == "__main__":
    main()
