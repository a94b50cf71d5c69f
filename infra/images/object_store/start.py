"""An S3 server of one node for `infra/compose.yaml`: Ceph's monitor, one OSD on a file, and radosgw, all of Debian.

The cluster is made at the first start, in /data; later starts go on with it. One copy of everything, on one disk: for
trying Solon on one machine, not for keeping what cost GPU hours. Ceph 16's conditional writes hold only while bucket
versioning is off (docs/store.md).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

DATA = Path("/data")
CONFIG = DATA / "ceph.conf"
MADE = DATA / "made"
"""Written last: without it what an earlier first start left is made anew."""
MONITOR = "[v2:127.0.0.1:3300/0]"
START_SECONDS = 120.0
TEXT = """
[global]
fsid = {cluster}
mon_host = {monitor}
mon_initial_members = a
public_network = 127.0.0.0/8
ms_bind_ipv6 = false
# only radosgw talks to the two others, on loopback, and each of its requests is signed
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
ms_mon_service_mode = crc
ms_mon_cluster_mode = crc
run_dir = /tmp
log_to_file = false
log_to_stderr = true
crash_dir = /tmp
admin_socket =
pid_file =
mon_data = {data}/mon
osd_data = {data}/osd
osd_objectstore = bluestore
bluestore_block_size = {size}
osd_memory_target = 2147483648
osd_numa_auto_affinity = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[client.rgw]
rgw_frontends = beast port={port}
rgw_crypt_require_ssl = false
"""


def main() -> None:
    """Until asked to leave, or until one of the three ends. Exit code 1: one ended by itself, or did not start."""
    # as it would be without this, but raised: the daemons are ended with us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.environ["CEPH_CONF"] = str(CONFIG)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        first = not MADE.exists()
        if first:
            make_monitor()
        daemons.append(subprocess.Popen(["ceph-mon", "-i", "a", "-f", "--public-addrv", MONITOR]))
        if first:
            make_disk()
        daemons.append(subprocess.Popen(["ceph-osd", "-i", "0", "-f"]))
        ensure_user()
        daemons.append(subprocess.Popen(["radosgw", "-n", "client.rgw", "-f"]))
        MADE.touch()
        while all(daemon.poll() is None for daemon in daemons):
            time.sleep(1)
        sys.exit("object store: one of Ceph's daemons ended; its last lines are above")
    finally:
        for daemon in reversed(daemons):  # radosgw first, so that what it acknowledged is written
            daemon.terminate()
            daemon.wait(60)


def make_monitor() -> None:
    cluster, size = str(uuid.uuid4()), int(os.environ.get("SOLON_OBJECT_STORE_GIB", "100")) * 2**30
    for name in ("mon", "osd"):
        shutil.rmtree(DATA / name, ignore_errors=True)
        (DATA / name).mkdir()
    port = os.environ.get("SOLON_OBJECT_STORE_PORT", "8000")
    CONFIG.write_text(TEXT.format(cluster=cluster, monitor=MONITOR, data=DATA, size=size, port=port))
    run("monmaptool", "--create", "--clobber", "--fsid", cluster, "--addv", "a", MONITOR, "/tmp/monmap")
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "/tmp/monmap")


def make_disk() -> None:
    """The OSD's file: sparse, so it takes what is stored."""
    disk = str(uuid.uuid4())
    run("ceph", "osd", "new", disk)
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)


def ensure_user() -> None:
    """The one user, with the keys of the secret files."""
    known = subprocess.run(["radosgw-admin", "user", "list"], capture_output=True, text=True, timeout=START_SECONDS)
    if known.returncode == 0 and "solon" in json.loads(known.stdout):
        return
    keys = [f"--access-key={secret('AWS_ACCESS_KEY_ID')}", f"--secret-key={secret('AWS_SECRET_ACCESS_KEY')}"]
    run("radosgw-admin", "user", "create", "--uid=solon", "--display-name=solon", *keys)


def secret(name: str) -> str:
    path = os.environ.get(f"{name}_FILE")
    if not path:
        sys.exit(f"object store: {name}_FILE is not set; expected the path of a file with the key")
    return Path(path).read_text().strip()


def run(*command: str) -> None:
    """Raises: SystemExit: it failed; of its arguments only the first two are told, since others are keys."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    if result.returncode:
        sys.exit(f"object store: {' '.join(command[:2])} failed: {result.stderr[-1000:]}")


if __name__ == "__main__":
    main()
