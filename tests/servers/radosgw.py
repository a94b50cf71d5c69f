"""A Ceph of one node (monitor, one OSD, radosgw) on free loopback ports: a real object server that needs no root.

with radosgw("memstore") as server: ...    # server.endpoint, with the credentials of tests.servers.access
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from infra.debian_tools import environment, fetch, library_folders
from tasks.processes import GuardedProcess, free_port, guarded
from tests.servers.access import ACCESS_KEY, SECRET_KEY
from tests.servers.certificate import write_certificate

START_SECONDS = 90.0
"""A daemon that does not answer for this long is an error; on two busy cores all three take 10."""

_CONFIGURATION = """
[global]
fsid = {cluster}
mon_host = [v2:127.0.0.1:{monitor_port}/0]
mon_initial_members = a
public_network = 127.0.0.0/8
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# without authentication the default mode, secure, hangs
ms_mon_client_mode = crc
ms_mon_service_mode = crc
ms_mon_cluster_mode = crc
run_dir = {folder}
log_file = {folder}/$name.log
admin_socket =
pid_file =
crash_dir = {folder}
client_mount_timeout = 60
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data = {folder}/mon
mon_data_avail_crit = 1
# a lone monitor has nobody to wait for: ready in 1 to 6 s instead of 11
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_crush_chooseleaf_type = 0
osd_data = {folder}/osd
osd_objectstore = {objectstore}
osd_memory_target = 939524096
osd_numa_auto_affinity = false
osd_class_load_list = *
osd_class_default_list = *
osd_class_dir = {libraries}/rados-classes
plugin_dir = {libraries}/ceph
erasure_code_dir = {libraries}/ceph/erasure-code
memstore_device_bytes = 4294967296
bluestore_block_size = 8589934592
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} ssl_certificate={folder}/tls.pem
rgw_crypt_require_ssl = false
"""


class Radosgw:
    """The daemons of one cluster, each under a guard; the cluster lives in `folder`."""

    def __init__(self, tools: Path, folder: Path, objectstore: str, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._port, self._tls_port, self._monitor_port = free_port(), free_port(), free_port()
        self._daemons: list[GuardedProcess] = []
        self._env = {**os.environ, **environment(tools), "CEPH_CONF": str(folder / "ceph.conf")}
        self._libraries = next(path for path in library_folders(tools) if (path / "rados-classes").exists())
        self._objectstore, self._settings = objectstore, settings

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def tls_endpoint(self) -> str:
        """The same server, encrypted, by the certificate of `certificate`."""
        return f"https://127.0.0.1:{self._tls_port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def admin(self, *command: str) -> None:
        """One command of radosgw-admin. Raises: RuntimeError: with the end of a log."""
        self._run("radosgw-admin", *command)

    def create(self) -> None:
        """Make the cluster and its user, and start it. Raises: RuntimeError: with the end of a log."""
        cluster, osd = str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        values = {"cluster": cluster, "folder": self.folder, "objectstore": self._objectstore}
        ports = {"port": self._port, "tls_port": self._tls_port, "monitor_port": self._monitor_port}
        write_certificate(self.certificate, self.folder / "tls.pem")
        text = _CONFIGURATION.format(**values, **ports, libraries=self._libraries)
        settings = "".join(f"{name} = {value}\n" for name, value in self._settings.items())
        (self.folder / "ceph.conf").write_text(text + settings)
        monitors = str(self.folder / "monmap")
        self._run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", self._monitor_address, monitors)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self._start_monitor()
        command = json.dumps({"prefix": "osd new", "uuid": osd})
        self._run(sys.executable, "-I", str(Path(__file__).with_name("ceph_command.py")), command)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._start_rest()
        names = ("--uid=solon", "--display-name=solon", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
        self.admin("user", "create", *names)

    def kill(self) -> None:
        """SIGKILL every daemon at once, as a power cut would."""
        for daemon in self._daemons:
            for child in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
        self._forget()

    def restart(self) -> None:
        """Start the daemons again on what they had stored."""
        self._start_monitor()
        self._start_rest()

    def stop(self) -> None:
        for daemon in self._daemons:
            daemon.stop()
        self._daemons.clear()

    def _forget(self) -> None:
        for daemon in self._daemons:
            daemon.wait(30)
        self._daemons.clear()

    @property
    def _monitor_address(self) -> str:
        return f"[v2:127.0.0.1:{self._monitor_port}/0]"

    def _start_monitor(self) -> None:
        self._start("ceph-mon", "-i", "a", "--public-addrv", self._monitor_address)

    def _start_rest(self) -> None:
        self._start("ceph-osd", "-i", "0")
        self._start("radosgw", "-n", "client.rgw")
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self._daemons):
                raise RuntimeError(f"radosgw: no answer on {self.endpoint}\n{self._log_tails()}")
            time.sleep(0.1)

    def _start(self, *command: str) -> None:
        log = self.folder / f"{command[0]}.out"
        # what a throwaway cluster has not written yet is not missed: no grace
        self._daemons.append(guarded([*command, "-f"], self._env, log, cwd=self.folder, grace_seconds=0.0))

    def _run(self, *command: str) -> None:
        result = subprocess.run(
            command, env=self._env, cwd=self.folder, timeout=START_SECONDS, capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise RuntimeError(f"radosgw: {command[0]} failed: {result.stderr[-500:]}\n{self._log_tails()}")

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=5).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def _log_tails(self) -> str:
        logs = sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-500:]}" for log in logs)


@contextmanager
def radosgw(objectstore: str = "memstore", settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Radosgw]:
    """A running server on `memstore` (starts sooner) or `bluestore` (survives `kill`); gone afterwards.

    `settings` are further ones of the gateway, by Ceph's names.

    Raises: infra.debian_tools.Missing: Ceph cannot be had on this machine.
    """
    tools = fetch("ceph")
    with tempfile.TemporaryDirectory(prefix="solon-ceph-", ignore_cleanup_errors=True) as folder:
        server = Radosgw(tools, Path(folder), objectstore, settings)
        try:
            server.create()
            yield server
        finally:
            server.stop()
