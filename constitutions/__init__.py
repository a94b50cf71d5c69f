"""Constitutions: principles as YAML beside this file, and the model that reads, hashes and draws them.

Imports nothing of `tasks`, so that everything may import it.
"""

from constitutions.load import load_constitution
from constitutions.model import Constitution, ConstitutionError, Principle
from constitutions.rendezvous import draw

__all__ = ["Constitution", "ConstitutionError", "Principle", "draw", "load_constitution"]
