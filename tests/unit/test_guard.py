"""Who wakes a guest when its backup dies is let in as the backup was, and shows nobody how."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libvirt")

KNOWN = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
HOST = f"""<node><domain type='test'><name>web</name><uuid>{KNOWN}</uuid><memory>8388608</memory>
<vcpu>1</vcpu><os><type>hvm</type></os></domain><auth><user password='{{}}'>backup</user></auth>
</node>"""
DIES = """
import sys, time
from holdfast.sources.machines.guard import guarded
url, uuid = sys.argv[1:]
password = sys.stdin.readline().strip()
with guarded(libvirt=url, uuid=uuid, user="backup", password=password):
    print("frozen", flush=True)
    time.sleep(600)
"""


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("right", [True, False])
def test_a_guest_is_woken_with_the_password_of_the_backup_that_died(
    tmp_path: Path, right: bool
) -> None:
    """libvirt's own driver for tests asks for one; a guard that is not let in goes on trying."""
    (tmp_path / "host.xml").write_text(HOST.format("s3cret" if right else "another"))
    words = [sys.executable, "-c", DIES, f"test://{tmp_path}/host.xml", KNOWN]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as backup:
        assert backup.stdin is not None
        assert backup.stdout is not None
        backup.stdin.write("s3cret\n")
        backup.stdin.flush()
        assert backup.stdout.readline() == "frozen\n"
        (guard,) = children(backup.pid)
        watched = os.pidfd_open(guard)
        assert "s3cret" not in Path(f"/proc/{guard}/cmdline").read_text()
        assert "s3cret" not in Path(f"/proc/{guard}/environ").read_text()
        backup.kill()
    try:
        assert bool(select.select([watched], [], [], 30 if right else 3)[0]) is right
    finally:
        if not right:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
        os.close(watched)
