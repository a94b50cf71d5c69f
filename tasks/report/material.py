"""What the report is made of: tables and manifests of one run, read once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from constitutions import Constitution
from tasks.constitution import read_constitution
from tasks.schema import DatasetRef, ModelRef, Row
from tasks.stage import RunContext
from tasks.store import Manifest, Store
from tasks.store.identity import table_to_rows

RowT = TypeVar("RowT", bound=Row)

SECOND = "models/held_out_reward"
BEFORE_EVALUATION = ("gates/leakage", "samples/")
MADE_BEFORE: dict[str, str | tuple[str, ...]] = {
    "models/sl": "comparisons",
    "models/reward": BEFORE_EVALUATION,
    SECOND: BEFORE_EVALUATION,
    "models/rl": BEFORE_EVALUATION,
}
"""What a model stands before, in the order of the method: a dataset, or the first of several."""
MATCHES = "matches/"
"""What the names of the judges' matches begin with."""
LABELS = "labels/"
"""What the names of the evaluators' labels begin with."""

QUESTION_SETS, ANSWERS, EVALUATOR_ANSWERS = "question_sets/", "answers/", "evaluator_answers/"
"""What the names of question sets begin with, and of what policies and models that label answer to them."""


@dataclass(frozen=True)
class Material:
    """One run. Tables stay Arrow: of the large ones a section reads a few columns or a few rows."""

    run: RunContext
    constitution: Constitution
    tables: Mapping[str, pa.Table]
    """By dataset, in the order of the method; a policy's samples as `samples/<policy>`, and so on."""
    manifests: Mapping[str, Manifest]
    """The same names, and `models/sl`, `models/reward`, `models/rl`; a second reward model where there is one."""

    @property
    def policies(self) -> list[str]:
        """Names of the policies in the order of training."""
        return [name.removeprefix("samples/") for name in self.tables if name.startswith("samples/")]

    @property
    def labels(self) -> dict[str, pa.Table]:
        """Each evaluator's labels."""
        return {name.removeprefix(LABELS): table for name, table in self.tables.items() if name.startswith(LABELS)}


def read_material(
    store: Store, datasets: Mapping[str, DatasetRef], models: Mapping[str, ModelRef], run: RunContext
) -> Material:
    """Read everything that the report shows.

    Raises: NotCommitted. Corrupt.
    """
    manifests = {name: store.manifest(ref.dataset, ref.version) for name, ref in datasets.items()}
    manifests |= {name: store.manifest(ref.model, ref.version) for name, ref in models.items()}
    second = manifests["models/rl"].derivation.cites.get("held_out_reward")
    if second:
        manifests[SECOND] = store.manifest(SECOND, second.removeprefix(f"{SECOND}/"))
    return Material(
        run=run,
        constitution=read_constitution(store, datasets["constitution"]),
        tables={name: store.read(ref) for name, ref in datasets.items()},
        manifests={name: manifests[name] for name in in_order(datasets, [m for m in MADE_BEFORE if m in manifests])},
    )


def in_order(datasets: Collection[str], models: Collection[str]) -> list[str]:
    """All names in the order in which the method makes them."""
    names = list(datasets)
    for model in models:
        following = next(i for i, name in enumerate(names) if name.startswith(MADE_BEFORE[model]))
        names.insert(following, model)
    return names


def rows_where(table: pa.Table, column: str, values: Collection[str], model: type[RowT]) -> list[RowT]:
    """The rows whose column has one of the values, in order."""
    wanted = pc.is_in(table.column(column), value_set=pa.array(list(values), pa.string()))
    return table_to_rows(table.filter(wanted), model)
