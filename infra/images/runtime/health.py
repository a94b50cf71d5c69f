"""Whether what this container runs is well: exit code 0 or 1. Docker's HEALTHCHECK, and an exec probe of Kubernetes.

A worker answers /health while it polls its pool. SOLON_HEALTH_URL names another address, such as the Prefect server's.
"""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

TIMEOUT_SECONDS = 5


def address(env: Mapping[str, str]) -> str:
    port = env.get("PREFECT_WORKER_WEBSERVER_PORT", "8080")
    return env.get("SOLON_HEALTH_URL") or f"http://127.0.0.1:{port}/health"


def problem(url: str) -> str | None:
    """Why it is not well; None if it is."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            return None if answer.status == 200 else f"{url} answered {answer.status}"
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        return f"{url}: {error}"


def main() -> None:
    if found := problem(address(os.environ)):
        sys.exit(f"unhealthy: {found}")
    print("healthy")


if __name__ == "__main__":
    main()
