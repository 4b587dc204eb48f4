"""What commands load at their start: what reads file systems, for images of machines alone."""

from __future__ import annotations

import subprocess
import sys

READERS = {
    "holdfast.movers.machines.inside",
    "holdfast.movers.machines.file_restore",
    "holdfast.sources.filesystems.sandboxed",
    "holdfast.sources.filesystems.appliance.appliance",
    "pytsk3",
}


STARTS = {
    *(f"holdfast.faces.cli.{one}" for one in ("ls", "restore", "mount", "find")),
    "holdfast.movers.transfer.machine",
    "holdfast.movers.machines.image_restore",
}


def test_what_reads_file_systems_is_not_loaded_before_it_is_needed() -> None:
    names = ", ".join(sorted(STARTS))
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {names}; print(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    loaded = set(said.stdout.splitlines())
    assert loaded >= STARTS
    assert not loaded & READERS
