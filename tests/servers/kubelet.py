"""Machines for the pods of `kubernetes_api`: each a Linux network namespace, a pod a process inside it.

Two machines on a wire of their own (a veth pair), with names for each other as a cluster's DNS gives them. What a
scheduler, the JobSet controller and kubelets do is done by one thread: start the pods of a new JobSet, tell how they
ended, ask the others to leave when one failed, and end those whose JobSet was deleted. Needs root.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.servers.kubernetes_api import KubernetesApi

ROOT = Path(__file__).parents[2]
INTERFACE = "eth0"
MACHINES = ("solon-node-0", "solon-node-1")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
POLL_SECONDS = 0.1


class Refused(RuntimeError):
    """This machine gives no network namespaces."""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def machines() -> Iterator[None]:
    """Two namespaces that reach each other and nothing else. Raises: Refused."""
    for name in MACHINES:
        ip("netns", "add", name)
    try:
        ip(
            "link",
            "add",
            INTERFACE,
            "netns",
            MACHINES[0],
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            MACHINES[1],
        )
        for name, address in zip(MACHINES, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
            ip("-n", name, "link", "set", INTERFACE, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in MACHINES:
            kill_all(name)
            ip("netns", "del", name)
            shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)


def processes(machine: str) -> list[int]:
    done = subprocess.run(["ip", "netns", "pids", machine], capture_output=True, text=True, check=True)
    return [int(pid) for pid in done.stdout.split()]


def kill_all(machine: str) -> None:
    """End all that runs there at once, as a machine that loses power does."""
    while found := processes(machine):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def pull_plug(machine: str, plugged: bool = False) -> None:
    """The wire: without it no packet comes or goes, and no connection is told so."""
    ip("-n", machine, "link", "set", INTERFACE, "up" if plugged else "down")


class Kubelet:
    """Runs the pods of every JobSet of an API server; one thread."""

    def __init__(self, api: KubernetesApi, folder: Path) -> None:
        self.api, self.folder = api, folder
        self.started = 0
        """JobSets whose pods were started."""
        self._pods: dict[str, dict[str, subprocess.Popen[bytes]]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="kubelet")

    def __enter__(self) -> "Kubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def living(self) -> int:
        """Pods whose process has not ended."""
        return sum(process.poll() is None for pods in self._pods.values() for process in pods.values())

    def _live(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            there = {found["metadata"]["uid"]: found for found in self.api.jobsets()}
            for uid, found in there.items():
                if uid not in self._pods:
                    self._pods[uid] = self._start(found)
                    self.started += 1
                elif not found.get("status"):
                    self._look_after(found, self._pods[uid])
            for uid in self._pods.keys() - there.keys():
                ask_to_leave(self._pods[uid])

    def _start(self, jobset: dict[str, Any]) -> dict[str, "subprocess.Popen[bytes]"]:
        name = jobset["metadata"]["name"]
        container = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
        return {
            pod: self._run(container, pod, machine, index)
            for index, (pod, machine) in enumerate(zip(self.api.add_pods(name), MACHINES, strict=True))
        }

    def _run(self, container: dict[str, Any], pod: str, machine: str, index: int) -> "subprocess.Popen[bytes]":
        home = self.folder / f"{self.started}-{pod}"
        home.mkdir(parents=True)
        arguments = [
            str(home / "message") if a == container["terminationMessagePath"] else a for a in container["args"]
        ]
        hosts = Path("/etc/netns", machine, "hosts")
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text(f"127.0.0.1 localhost\n{ADDRESSES[0]} {arguments[arguments.index('--address') + 1]}\n")
        given = {variable["name"]: variable["value"].replace("$$", "$") for variable in container["env"]}
        own = {"JOB_COMPLETION_INDEX": str(index), "PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(home)}
        with (home / "log").open("wb") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", machine, sys.executable, *container["command"][1:], *arguments],
                cwd=home,
                env=os.environ | given | own,
                stdout=log,
                stderr=log,
            )

    def _look_after(self, jobset: dict[str, Any], pods: dict[str, "subprocess.Popen[bytes]"]) -> None:
        ended = {pod: code for pod, process in pods.items() if (code := process.poll()) is not None}
        for pod, code in ended.items():
            if self.api.objects["pods", pod]["status"]["phase"] == "Running":
                message = next(iter(self.folder.glob(f"{self.started - 1}-{pod}/message")), None)
                words = message.read_text() if message else ""
                self.api.end_pod(pod, code if code >= 0 else 128 - code, "Completed" if code == 0 else "Error", words)
        if any(ended.values()):
            ask_to_leave(pods)
        if len(ended) == len(pods):
            self.api.end_jobset(jobset["metadata"]["name"], "Failed" if any(ended.values()) else "Completed")


def ask_to_leave(pods: dict[str, "subprocess.Popen[bytes]"]) -> None:
    for process in pods.values():
        if process.poll() is None:
            process.terminate()
