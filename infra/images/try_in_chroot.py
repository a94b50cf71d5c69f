"""Builds an image's root with the Dockerfile's own steps and starts what it is for, without docker.

    sudo python3 -m infra.images.try_in_chroot orchestrator [--folder /var/tmp/solon-images] [--no-build]
    sudo python3 -m infra.images.try_in_chroot trainer --build-arg ACCELERATOR=cpu
    sudo python3 -m infra.images.try_in_chroot object-store          # after the orchestrator, which is its client

Then, as user 10001, with everything read-only but /tmp and /scratch and none of this machine's environment: the command
line, a small alignment with the transformers engine, and a worker that registers at a Prefect server and is healthy;
of the object store Solon's doctor and the compose file's `prepare`, and both again after its daemons were killed.
Minutes, 6 GB of disk a Dockerfile, packages from apt and pip. It is a chroot: no cgroups, no seccomp, our network.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from infra.images.chroot_build import ROOT, Builder, make_base, namespaced, with_environment
from infra.images.dockerfile import Stage, pairs, read_dockerfile, words

IMAGE = "image"
"""The stage that each Dockerfile ends in."""
WAIT_SECONDS = 180.0
SMALL = (
    "run.serving.engine=transformers", "run.chunk_rows=8", "run.training.tracker=none", "prompts.red_team_limit=12",
    "prompts.helpful_limit=6", "prompts.held_out_limit=12", "preferences.human_limit=12", "revise.num_rounds=2",
    "reward.second_model_share=0", "reward.epochs=1", "rl.ppo.num_updates=2", "rl.ppo.batch_size=16",
    "rl.ppo.mini_batch_size=8", "rl.ppo.micro_batch_size=8", "match.num_prompts=8", "gates.on_failure=warn",
)  # fmt: skip
"""The micro preset, cut down to a minute or two."""
CHECK_WRITING = """
import os
for place in ("/", "/opt/solon", "/etc", "/usr", "/var/tmp", "/scratch", "/tmp"):
    try:
        path = os.path.join(place, "written")
        open(path, "w").close()
        os.unlink(path)
        print(place, "can be written")
    except OSError as error:
        print(place, "cannot:", error.strerror)
capabilities = open("/proc/self/status").read().split("CapEff:")[1].split()[0]
print("user", os.getuid(), "group", os.getgid(), "capabilities", capabilities)
"""


class Image:
    """A built root with what its last stage says of starting it."""

    def __init__(self, root: Path, stage: Stage, env: Mapping[str, str], scratch: Path) -> None:
        self.root, self.env, self.scratch = root, {**env, "OMP_NUM_THREADS": "1"}, scratch
        said = {instruction.name: instruction for instruction in stage.instructions}
        self.user, self.folder = said["USER"].value, said["WORKDIR"].value
        self.entry, self.command, self.health = (words(said[n]) for n in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
        (self.volume,) = words(said["VOLUME"])
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        os.chown(scratch, *map(int, self.user.split(":")))

    def started(self, command: list[str], **env: str) -> list[str]:
        """What docker run would start, read-only."""
        user = ["chroot", f"--userspec={self.user}", "--groups=", str(self.root)]
        prefix = with_environment({**self.env, **env})
        inside = [*user, *prefix[:2], f"--chdir={self.folder}", *prefix[2:], *self.entry, *command]
        return namespaced(self.root, inside, [(self.scratch, self.volume)], [], read_only=True)

    def run(self, *command: str, **env: str) -> str:
        """What it printed. Raises: SystemExit: it failed."""
        print(f"\n$ {' '.join(command)[:100]}", flush=True)
        result = subprocess.run(self.started(list(command), **env), capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"exit code {result.returncode}:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
        return result.stdout

    @contextlib.contextmanager
    def running(
        self, name: str, command: list[str], ended_by: signal.Signals = signal.SIGTERM, **env: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Until the block ends; then `ended_by` goes to the first process, with which all of the namespace ends."""
        print(f"\n$ {' '.join(command)[:100]} &", flush=True)
        with (self.scratch / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(self.started(command, **env), stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                # to unshare's child: unshare itself ignores SIGTERM, and what would take the child along
                # (--kill-child) is forgotten by the kernel once the child changes its user
                for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                    os.kill(int(child), ended_by)
            process.wait(WAIT_SECONDS)


def built(name: str, folder: Path, arguments: dict[str, str], build: bool) -> Image:
    dockerfile = read_dockerfile(ROOT / "infra" / "images" / f"{name}.Dockerfile")
    builder = Builder(dockerfile, make_base(folder / "debian"), folder / name, arguments)
    if build:
        start = time.monotonic()
        builder.build(IMAGE)
        print(f"built {name} in {time.monotonic() - start:.0f} s", flush=True)
    env = {k: v for i in dockerfile.final.instructions if i.name == "ENV" for k, v in pairs(i).items()}
    return Image(builder.root(IMAGE), dockerfile.final, env, folder / f"{name}-scratch")


def try_commands(image: Image) -> None:
    """The command line, what can be written, what torch is, and a small alignment."""
    print("\n".join(image.run("./solon", "--help").splitlines()[:6]))
    print(image.run("python", "-c", CHECK_WRITING).strip())
    torch = "import torch; print('torch', torch.__version__, 'CUDA', torch.version.cuda)"
    print(image.run("python", "-c", torch).strip())
    size = subprocess.run(["du", "-sm", image.root], capture_output=True, text=True, check=True).stdout.split()[0]
    bill = json.loads((image.root / "opt/solon/sbom.cdx.json").read_text())
    print(f"root of {size} MB; {bill['bomFormat']} {bill['specVersion']} names {len(bill['components'])} distributions")
    settings = [word for setting in SMALL for word in ("--set", setting)]
    start = time.monotonic()
    said = image.run("./solon", "align", "--preset", "micro", *settings, "--store", "/scratch/store")
    print(f"aligned in {time.monotonic() - start:.0f} s; it ends:\n" + "\n".join(said.splitlines()[-14:]))
    print("\n".join(image.run("./solon", "datasets", "ls", "--store", "/scratch/store").splitlines()[:30]))


@contextlib.contextmanager
def prefect_of(image: Image) -> Iterator[tuple[dict[str, str], Path]]:
    """A Prefect server in the image: (what reaches it, the file with its password here)."""
    secret, port = given(image, "auth", "solon:only-for-this-try"), free_port()
    server = ["python", "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/api"
    files = {"PREFECT_API_AUTH_STRING_FILE": "/scratch/auth"}
    with image.running("server", server, PREFECT_SERVER_API_AUTH_STRING_FILE="/scratch/auth", **files) as process:
        wait(process, image.scratch / "server.log", lambda: answers(f"{url}/health", secret))
        print("the server is well:", image.run(*image.health, SOLON_HEALTH_URL=f"{url}/health").strip())
        yield {"PREFECT_API_URL": url, **files}, secret


def given(image: Image, name: str, text: str) -> Path:
    """A secret's file in the volume, for the image's user alone."""
    path = image.scratch / name
    path.write_text(f"{text}\n")
    os.chown(path, *map(int, image.user.split(":")))
    path.chmod(0o400)
    return path


def try_worker(image: Image) -> None:
    """A server, the image's own worker, its registration and its health."""
    health = str(free_port())
    with prefect_of(image) as (reached, secret):
        url, env = reached["PREFECT_API_URL"], {**reached, "PREFECT_WORKER_WEBSERVER_PORT": health}
        with image.running("worker", [*image.command, "--name", "tried"], **env) as worker:
            pool = image.command[image.command.index("--pool") + 1]
            workers = f"{url}/work_pools/{pool}/workers/filter"
            found = wait(worker, image.scratch / "worker.log", lambda: answers(workers, secret))
            print("registered:", [(one["name"], one["status"]) for one in found])
            wait(worker, image.scratch / "worker.log", lambda: answers(f"http://127.0.0.1:{health}/health", None))
            print("the worker is well:", image.run(*image.health, **env).strip())


def try_object_store(image: Image, client: Image) -> None:
    """The compose file's `prepare` against it, and once more after a kill -9 of all its daemons."""
    port = str(free_port())
    keys = {"AWS_ACCESS_KEY_ID": "only-for-this", "AWS_SECRET_ACCESS_KEY": "try-and-no-secret"}
    for holder in (image, client):
        for name, value in keys.items():
            given(holder, name, value)
    files = {f"{name}_FILE": f"{image.volume}/{name}" for name in keys}
    here = {"SOLON_OBJECT_STORE_PORT": port, "SOLON_HEALTH_URL": f"http://127.0.0.1:{port}/", **files}
    there = {f"{name}_FILE": f"{client.volume}/{name}" for name in keys}
    there |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    with prefect_of(client) as (reached, _):
        for moment in ("first start", "after kill -9"):
            with image.running("store", image.command, signal.SIGKILL, **here) as process:
                healthy = image.started(image.health, **here)
                wait(process, image.scratch / "store.log", partial(succeeds, healthy))
                print(f"{moment}: the store is well")
                prepare = ("python", "-m", "infra.images.runtime.prepare", "s3://solon/store")
                said = client.run(*prepare, **there, **reached).splitlines()
                print(f"prepared: {len(said)} lines, the first and last:", said[0].strip(), "...", said[-1].strip())
                print(client.run("./solon", "doctor", "--store", "s3://solon/store", **there).rstrip())


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def answers(url: str, secret: Path | None) -> Any:
    """What an address says as JSON; None while it says nothing. Filters are asked by POST."""
    headers = {"Content-Type": "application/json"}
    if secret:
        headers["Authorization"] = "Basic " + base64.b64encode(secret.read_bytes().strip()).decode()
    request = urllib.request.Request(url, b"{}" if url.endswith("filter") else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], Any]) -> Any:
    """What `ready` gives once it gives something. Raises: SystemExit: the process ended, or too late."""
    deadline = time.monotonic() + WAIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(0.3)
    sys.exit(f"not ready; its log ends:\n{log.read_text(errors='replace')[-3000:]}")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", choices=["orchestrator", "trainer", "object-store"])
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/solon-images"))
    parser.add_argument("--no-build", action="store_true", help="take the root that is there")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("try_in_chroot: chroot and mount need root; start it with sudo")
    arguments = dict(argument.split("=", 1) for argument in options.build_arg)
    image = built(options.image, options.folder, arguments, not options.no_build)
    if options.image == "object-store":
        try_object_store(image, built("orchestrator", options.folder, arguments, build=False))
        return
    try_commands(image)
    try_worker(image)


if __name__ == "__main__":
    main()
