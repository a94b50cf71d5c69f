"""Constitutions: principles as YAML beside this file, and the model that reads, hashes and draws them.

Imports nothing of `tasks`, so that everything may import it.
"""

from constitutions.demonstrations import ComparisonDemonstration, RevisionDemonstration, Turn, in_seeded_order
from constitutions.load import load_constitution
from constitutions.model import Constitution, ConstitutionError, Principle
from constitutions.rendezvous import draw, draw_several

__all__ = [
    "ComparisonDemonstration",
    "Constitution",
    "ConstitutionError",
    "Principle",
    "RevisionDemonstration",
    "Turn",
    "draw",
    "draw_several",
    "in_seeded_order",
    "load_constitution",
]
