"""A training process that says who it is, and may kill itself where nobody outside could aim.

python -m tests.faults.trainer_child PIDFILE STEP FILES job.json

STEP: killed right before this optimizer step, counted from 1 in this process. FILES: killed while it writes a resume
point, at the FILES-th time that it opens a file below its `.partial-` folder, or right before that folder gets its
name if it opens fewer. 0: neither.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tasks.training import child


def main(pid_file: str, doomed_step: str, doomed_file: str, job: str) -> None:
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    Path(pid_file).write_text(str(os.getpid()))
    steps = opened = 0

    def before_step(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == int(doomed_step):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal opened
        if event not in ("open", "os.rename") or "/.partial-" not in str(arguments[0]):
            return
        opened += 1
        if event == "os.rename" or opened == int(doomed_file):
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(before_step)
    if int(doomed_file):
        sys.addaudithook(watch)
    child._main(job)


if __name__ == "__main__":
    main(*sys.argv[1:])
