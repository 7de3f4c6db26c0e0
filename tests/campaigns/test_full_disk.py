"""Writes to a disk that fills up; the disk is a small one in memory."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "lib" / "full_disk.py"
MOUNT = 'mount -t tmpfs -o size=4m none "$1" && shift && exec "$@"'


def in_own_mounts(folder, *command):
    """Run a command that sees a file system of 4 MB at `folder`; nobody else does, and it goes with the command."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    return subprocess.run([*unshare, "sh", "-c", MOUNT, "sh", folder, *command], capture_output=True, text=True)


@pytest.mark.parametrize("n_points", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_disk_full_at_many_points(tmp_path, n_points):
    if shutil.which("unshare") is None or in_own_mounts(tmp_path, "true").returncode:
        pytest.skip("no small file system can be mounted here: unshare --user --mount is not allowed")
    done = in_own_mounts(tmp_path, sys.executable, str(SCRIPT), str(tmp_path), str(n_points))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{n_points} points")
