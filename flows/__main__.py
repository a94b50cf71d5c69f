"""`./solon`: the command line. Exit code 0: done; 1: a run or a stage failed; 2: the command or a setting is wrong."""

import sys

from flows.server import apply_settings


def main() -> int:
    apply_settings()  # before anything imports Prefect
    from flows.cli import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
