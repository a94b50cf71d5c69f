"""What was made from what: the RL policy down to the prompts as a tree, and every version with its inputs."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from tasks.lineage import Branch, Node, Records, tree, upstream
from tasks.lineage.graph import key_of
from tasks.lineage.show import facts
from tasks.store import Derivation, Manifest

POLICY = "models/rl"
OTHER_RUN = "not of this run"


class Twig(NamedTuple):
    """One version in the tree; `anchor` is empty where the page has no line for it."""

    role: str
    """Empty where it is the dataset's name."""
    name: str
    version: str
    anchor: str
    facts: str
    nominal: bool
    """Named by what stands above it, which did not learn from it."""
    again: bool
    principles: list[tuple[str, str]]
    """Id and hash of its text, of every principle that was drawn from."""
    twigs: list["Twig"]


class Ancestor(NamedTuple):
    """One input of a version; `anchor` is empty where the page does not have it."""

    role: str
    version: str
    anchor: str


class Version(NamedTuple):
    """One committed version and where it came from."""

    name: str
    version: str
    content: str
    stage: str
    inputs: list[Ancestor]
    commit: str
    libraries: str
    created: str
    config: str


def descent(manifests: Mapping[str, Manifest]) -> Twig:
    """The RL policy and all that it came from, as far as the page has it."""
    records = Records(manifests.values())
    anchors = {key_of(manifest): anchor(name) for name, manifest in manifests.items()}
    root = tree(upstream(records, key_of(manifests[POLICY])))
    return twig(root, anchors, None)


def twig(branch: Branch, anchors: Mapping[str, str], root: Node | None) -> Twig:
    node, role = branch.node, branch.edge.role
    said = [OTHER_RUN] if node.state == "missing" else facts(node, root)
    listed = sorted(node.principles.items()) if node.dataset != "constitutions" else []
    return Twig(
        role=role if role != node.dataset else "",
        name=node.dataset,
        version=node.version,
        anchor=anchors.get(node.key, ""),
        facts=", ".join(said),
        nominal=branch.edge.nominal,
        again=branch.again,
        principles=[] if branch.again else listed,
        twigs=[twig(below, anchors, root or node) for below in branch.branches],
    )


def versions(manifests: Mapping[str, Manifest]) -> list[Version]:
    """Every version in the order of the method, with what it was made from."""
    known = {manifest.content_hash: (manifest.version, anchor(name)) for name, manifest in manifests.items()}
    return [version_of(name, manifest, known) for name, manifest in manifests.items()]


def anchor(name: str) -> str:
    return "version-" + name.replace("/", "-")


def ancestors(made: Derivation, known: Mapping[str, tuple[str, str]]) -> list[Ancestor]:
    """Inputs by version; models of the store likewise, outside ones by the hash of their files."""
    inputs = [(role, ref.version, ref.content_hash) for role, ref in sorted(made.inputs.items())]
    models = [(role, known.get(content, (content, ""))[0], content) for role, content in sorted(made.models.items())]
    found = [Ancestor(role, version, known.get(content, ("", ""))[1]) for role, version, content in inputs + models]
    slice_ = [Ancestor("constitution slice", made.constitution, anchor("constitution"))] if made.constitution else []
    return found + slice_


def version_of(name: str, manifest: Manifest, known: Mapping[str, tuple[str, str]]) -> Version:
    made = manifest.derivation
    libraries = ", ".join(f"{library} {version}" for library, version in sorted(manifest.libraries.items()))
    return Version(
        name=name,
        version=manifest.version,
        content=manifest.content_hash,
        stage=f"{made.stage} v{made.code_version}",
        inputs=ancestors(made, known),
        commit=manifest.code_commit or "unknown",
        libraries=libraries,
        created=manifest.created_at[:19],  # to the second
        config=json.dumps(made.config, indent=1, sort_keys=True, ensure_ascii=False),
    )
