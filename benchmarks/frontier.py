"""The frontier of the micro runs in a store: Elo of every policy by each judge, and how far the judges agree.

    ./solon align --preset micro --preset frontier --seed 0    # and seeds 1 and 2
    .venv/bin/python -m benchmarks.frontier

The oracle knows what each completion is, the feedback model only reads it: where both order the policies alike, the
feedback model's frontier can be believed in this world. Kendall's tau is over all pairs of policies.
"""

import argparse
from statistics import fmean

from tasks.report.ratings import AXES, agreements, judges_of, rating_table
from tasks.schema import Metric
from tasks.store import Store
from tasks.store.identity import table_to_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default=".solon/store")
    found: dict[str, list[float]] = {}
    for seed, metrics in read_metrics(Store.open(parser.parse_args().store)).items():
        policies = list(dict.fromkeys(m.policy for m in metrics))
        print(f"\nseed {seed}: {len(policies)} policies")
        columns = [f"{axis}, {judge}" for judge in judges_of(metrics) for axis in AXES.values()]
        print(f"{'':8}" + "".join(f"{column:>30}" for column in columns))
        for line in rating_table(metrics, policies):
            print(f"{line.policy:8}" + "".join(f"{f'{value} ({interval})':>30}" for value, interval in line.cells))
        for each in agreements(metrics, policies):
            print(f"{each.first} and {each.second}, {each.axis}: Kendall's tau {each.kendall:.2f}")
            found.setdefault(each.axis, []).append(each.kendall)
    print("\n" + "; ".join(f"{axis}: tau {fmean(taus):.2f} on average" for axis, taus in found.items()))


def read_metrics(store: Store) -> dict[int, list[Metric]]:
    """The metrics of each seed that have policies along the way; the newest where there are several."""
    newest = sorted(store.versions("metrics"), key=lambda manifest: manifest.created_at)
    rows = {m.derivation.seed: table_to_rows(store.read(m.dataset_ref()), Metric) for m in newest}
    kept = {seed: found for seed, found in sorted(rows.items()) if any("@" in m.policy for m in found)}
    if not kept:
        raise SystemExit(f"frontier: {store.uri} holds no run with policies along the way; give another --store")
    return kept


if __name__ == "__main__":
    main()
