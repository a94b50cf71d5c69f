"""What a run would do before it does it: which stages are fresh, why the others are not, and what they will cost."""

from tasks.planning.plan import Plan, StagePlan
from tasks.planning.planner import Planner

__all__ = ["Plan", "Planner", "StagePlan"]
