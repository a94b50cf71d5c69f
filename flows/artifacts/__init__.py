"""What people see in Prefect's UI while a run works and after it: progress, samples, pictures, a summary.

Artifacts are bounded in size, texts are escaped and cut, and none of them can fail a stage. The whole is in the store.
"""

from flows.artifacts.live import LiveArtifact, publish, shown
from flows.artifacts.progress import StageProgress
from flows.artifacts.summary import publish_result

__all__ = ["LiveArtifact", "StageProgress", "publish", "publish_result", "shown"]
