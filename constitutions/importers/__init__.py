"""Constitutions that were written elsewhere, as ours: the paper's files, llm-swarm's shape, plain lines.

An importer keeps everything or refuses: a key it does not know is an error that names it.
"""

from constitutions.importers.anthropic import export_anthropic
from constitutions.importers.source import FORMATS, Imported, import_constitution
from constitutions.importers.writing import yaml_text

__all__ = ["FORMATS", "Imported", "export_anthropic", "import_constitution", "yaml_text"]
