"""A lineage as a tree, for people: the longest way down first, what is shared once and then by reference."""

from typing import NamedTuple

from tasks.lineage.graph import Edge, Lineage, Node

SHORT = 10


class Branch(NamedTuple):
    """A version in its place in the tree."""

    edge: Edge
    node: Node
    again: bool
    """It stands further up, with all it came from."""
    branches: list["Branch"]


def tree(lineage: Lineage) -> Branch:
    """The root with what it was made from, and so on. Whatever leads furthest comes first."""
    heights: dict[str, int] = {}
    measure(lineage, lineage.root, heights)
    return grow(lineage, Edge(role="", to=lineage.root), heights, set())


def measure(lineage: Lineage, key: str, heights: dict[str, int]) -> int:
    """How many steps lead down from a node; a circle, which no store can make, counts as its end."""
    if key not in heights:
        heights[key] = 0  # stands while its own branches are measured
        below = [measure(lineage, edge.to, heights) for edge in lineage.nodes[key].made_from]
        heights[key] = 1 + max(below, default=0)
    return heights[key]


def grow(lineage: Lineage, edge: Edge, heights: dict[str, int], shown: set[str]) -> Branch:
    node = lineage.nodes[edge.to]
    if node.key in shown:
        return Branch(edge, node, True, [])
    shown.add(node.key)
    ordered = sorted(node.made_from, key=lambda e: (e.nominal, -heights[e.to], is_outside(lineage, e), e.role, e.to))
    return Branch(edge, node, False, [grow(lineage, below, heights, shown) for below in ordered])


def is_outside(lineage: Lineage, edge: Edge) -> bool:
    return lineage.nodes[edge.to].state == "outside"


def short(name: str) -> str:
    """As much of a version or hash as tells it from others."""
    return name[:SHORT]


def facts(node: Node, like: Node | None = None) -> list[str]:
    """What is worth saying about a version, in a few words each; not the seed and commit that it shares with `like`."""
    said = [f"{node.rows} rows"] if node.rows is not None else []
    said += [f"{node.stage} v{node.code_version}"] if node.stage else []
    said += [f"seed {node.seed}"] if node.seed is not None and not (like and like.seed == node.seed) else []
    said += [f"force {node.force}"] if node.force is not None else []
    said += (
        [f"commit {commit(node.code_commit)}"] if node.code_commit and not (like and same_commit(like, node)) else []
    )
    said += [f"{len(node.principles)} principles"] if node.principles else []
    said += [f"{count} rows from {short_source(source)}" for source, count in sorted(node.sources.items())]
    said += [str(node.kept.get("reason") or "kept")] if node.kept else []
    return said + notes(node)


def same_commit(a: Node, b: Node) -> bool:
    return a.code_commit == b.code_commit


def notes(node: Node) -> list[str]:
    """What is out of the ordinary with a node."""
    states = {"removed": "removed by gc", "missing": "no record in this store", "outside": "model from outside"}
    said = [states[node.state]] if node.state in states else []
    return said + ([f"made again, removed {node.generation} times before"] if node.generation else [])


def commit(name: str) -> str:
    return short(name) + ("-dirty" if name.endswith("-dirty") else "")


def short_source(source: str) -> str:
    """`chunks/<version>` keeps its folder: those rows were never committed."""
    folder, _, version = source.rpartition("/")
    return f"{folder}/{short(version)}" if folder else short(version)


def mermaid(lineage: Lineage) -> str:
    """The graph as Mermaid text, from what was there first to the root; every label is escaped."""
    names = {key: f"n{index}" for index, key in enumerate(sorted(lineage.nodes))}
    lines = ["flowchart TD"]
    for key, name in names.items():
        node = lineage.nodes[key]
        label = "<br/>".join(escape(text) for text in (f"{node.dataset} {short(node.version)}", *facts(node)))
        lines.append(f'    {name}["{label}"]:::{"root" if key == lineage.root else node.state}')
    for key, name in names.items():
        for edge in lineage.nodes[key].made_from:
            arrow = "-.->" if edge.nominal else "-->"
            lines.append(f'    {names[edge.to]} {arrow}|"{escape(edge.role)}"| {name}')
    return "\n".join([*lines, *STYLES]) + "\n"


STYLES = (
    "    classDef root stroke-width:3px",
    "    classDef live stroke-width:1px",
    "    classDef removed stroke-dasharray:4 3,opacity:0.6",
    "    classDef missing stroke-dasharray:1 3,opacity:0.6",
    "    classDef outside stroke-dasharray:6 2",
)


def escape(text: str) -> str:
    """Anything that Mermaid or HTML could read as its own becomes a character code."""
    plain = " .,_/:-"
    return "".join(c if c.isascii() and (c.isalnum() or c in plain) else f"#{ord(c)};" for c in text)
