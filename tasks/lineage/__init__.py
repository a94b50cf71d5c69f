"""Where every version and row came from, and what a principle touched: read from manifests, never kept apart.

A version names its inputs by version and content hash, and cites what enters its identity only by content. So the
whole graph is in the manifests; gc's tombstones keep what it removed in it.
"""

from tasks.lineage.graph import Edge, Lineage, Node, Records, read_records, upstream
from tasks.lineage.show import Branch, mermaid, tree

__all__ = ["Branch", "Edge", "Lineage", "Node", "Records", "mermaid", "read_records", "tree", "upstream"]
