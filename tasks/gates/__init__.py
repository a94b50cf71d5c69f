"""What has to hold before a label set may train anything: each gate a pure function to a `Gate` row."""

from tasks.gates.config import GatesConfig

__all__ = ["GatesConfig"]
