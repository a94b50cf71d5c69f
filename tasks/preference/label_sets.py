"""Which label sets of the store belong together: every evaluator's, of the same comparisons and constitution."""

from collections.abc import Iterator
from typing import NamedTuple

from tasks.preference.reading import Labelled, read_labelled
from tasks.schema import DatasetRef
from tasks.store import Manifest, Store, StoreError


class LabelSets(NamedTuple):
    """The labels of one set of comparisons, and what they were made of."""

    prompts: DatasetRef
    comparisons: DatasetRef
    constitution: DatasetRef
    labels: dict[str, DatasetRef]
    """By evaluator."""
    version: str
    """The label version that was asked for."""

    def read(self, store: Store) -> Iterator[Labelled]:
        """Every comparison in order, with its prompt and all its labels."""
        return read_labelled(store, self.prompts, self.comparisons, self.labels)


def label_sets(store: Store, name: str | None) -> LabelSets:
    """The label version that is named, or the newest, beside the newest of every other evaluator on the same
    comparisons and constitution.

    Raises: StoreError: there is none.
    """
    made = [manifest for manifest in store.versions("labels") if manifest.rows]
    if name is None and not made:
        raise StoreError(f"store {store.uri}: no labels to show; run `./solon align` on it first")
    chosen = store.resolve("labels", name) if name is not None else made[-1]
    given = ("prompts", "comparisons", "constitution")
    same = [m for m in made if all(m.derivation.cites.get(role) == cited(chosen, role) for role in given)]
    labels = {evaluator_of(store, manifest): manifest.dataset_ref() for manifest in [*same, chosen]}
    prompts, comparisons, constitution = (input_of(store, chosen, role) for role in given)
    return LabelSets(prompts, comparisons, constitution, labels, chosen.version)


def cited(manifest: Manifest, role: str) -> str:
    """`dataset/version` of what a version was given. Raises: StoreError: nothing in that role."""
    found = manifest.derivation.cites.get(role)
    if found is None:
        raise StoreError(f"{manifest.dataset} {manifest.version}: cites no {role}; it was not made by the label stage")
    return found


def input_of(store: Store, manifest: Manifest, role: str) -> DatasetRef:
    dataset, _, version = cited(manifest, role).rpartition("/")
    return store.manifest(dataset, version).dataset_ref()


def evaluator_of(store: Store, manifest: Manifest) -> str:
    """Who made the labels: a version holds one evaluator's."""
    table = next(iter(store.read_tables(manifest.dataset_ref(), columns=["evaluator"])))
    return str(table.column("evaluator")[0].as_py())
