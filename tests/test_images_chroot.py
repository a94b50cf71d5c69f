"""What a Dockerfile's step may do to the machine that tries it."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.images.chroot_build import namespaced

NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "true"]


@pytest.fixture
def here(tmp_path):
    if os.geteuid() or subprocess.run(NAMESPACES, capture_output=True, check=False).returncode:
        pytest.skip("needs root and mount namespaces, as the script itself does")
    for name in ("shown", "bound", "root"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.crt").write_text("ours")
    return tmp_path


def run(here, script):
    root, at = here / "root", "/etc/certificates"
    binds = [(here / "bound", "/scratch")], [(here / "shown", at), (here / "shown" / "bundle.crt", "/run/bundle.crt")]
    command = namespaced(root, ["sh", "-c", f"cd {root}; {script}"], *binds, read_only=False)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_step_reads_what_is_shown_of_the_machine_and_can_change_none_of_it(here):
    assert run(here, "cat etc/certificates/bundle.crt run/bundle.crt").stdout == "oursours"
    for script in (
        "echo other > etc/certificates/bundle.crt",
        "echo other > run/bundle.crt",
        "rm etc/certificates/bundle.crt",
        "echo other > etc/certificates/new && mv etc/certificates/new etc/certificates/bundle.crt",
    ):
        assert "Read-only file system" in run(here, script).stderr
    assert [path.name for path in (here / "shown").iterdir()] == ["bundle.crt"]
    assert (here / "shown" / "bundle.crt").read_text() == "ours"


def test_step_writes_what_is_bound_and_leaves_no_mount_behind(here):
    assert run(here, "echo other > scratch/bundle.crt").returncode == 0
    assert (here / "bound" / "bundle.crt").read_text() == "other\n"
    assert str(here) not in Path("/proc/mounts").read_text()
