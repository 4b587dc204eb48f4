"""``verify-boot`` of a real Debian: every check that there is, and a picture for a person.

What runs in it gets nowhere, not even to the host that it runs on.
"""

from __future__ import annotations

import shlex
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from tests.kit import debian_guest
from tests.kit.debian_guest import needs_debian
from tests.kit.debian_machine import listener, reaching
from tests.kit.served import served
from tests.system.virtual_machines.test_policy_to_restore import run_and_wait
from tests.system.virtual_machines.test_verify_boot import POLICY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = [needs_debian, pytest.mark.slow, pytest.mark.timeout(900)]


def pixels(png: bytes) -> tuple[int, list[bytes]]:
    """How many bytes a pixel has, and the lines of a picture, of QEMU's making: 8 bits a colour."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data, width, colours = 8, b"", 0, 0
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, interlaced) == (8, 0)
            colours = {0: 1, 2: 3, 6: 4}[colour]
        if kind == b"IDAT":
            data += body
        at += 12 + length
    return colours, unfiltered(zlib.decompress(data), width * colours, colours)


def unfiltered(data: bytes, stride: int, colours: int) -> list[bytes]:
    """Take the filters of a PNG off (RFC 2083, 6)."""
    lines: list[bytes] = []
    before = bytes(stride)
    for at in range(0, len(data), stride + 1):
        kind, line = data[at], bytearray(data[at + 1 : at + 1 + stride])
        for x in range(stride):
            left = line[x - colours] if x >= colours else 0
            above = before[x]
            corner = before[x - colours] if x >= colours else 0
            estimate = left + above - corner
            nearest = min((left, above, corner), key=lambda one: abs(estimate - one))
            line[x] = (line[x] + (0, left, above, (left + above) // 2, nearest)[kind]) & 0xFF
        before = bytes(line)
        lines.append(before)
    return lines


def rows_of_text(lines: list[bytes], colours: int) -> list[int]:
    """Where there is something in cells of a text console: so many pixels of each row of 16."""
    found = []
    for top in range(0, len(lines) - 15, 16):
        row = lines[top : top + 16]
        background = row[0][:colours]
        lit = sum(
            line[x : x + colours] != background
            for line in row
            for x in range(0, len(line), colours)
        )
        found.append(lit)
    return found


def test_a_debian_is_booted_and_its_console_is_in_the_picture(
    site: Command, tmp_path: Path
) -> None:
    # Where tests run, KVM may be there and not work.
    site.environ["HOLDFAST_ACCELERATOR"] = "tcg"
    shelf = tmp_path / "machines"
    shelf.mkdir()
    debian_guest.copy(shelf / "debian.qcow2")
    (tmp_path / "policy.toml").write_text(POLICY)
    with served(site) as running:
        site("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", shelf).assert_ok()
        site("policy", "apply", tmp_path / "policy.toml", "--yes").assert_ok()
        (done,) = run_and_wait(site, "policy", "run", "estate", patience_s=400)
        assert done["outcome"].startswith("completed"), done
        running.stop()
    picture = tmp_path / "debian.png"
    words: list[str | Path] = ["verify-boot", done["image_id"], "--agent"]
    words += ["--serial", debian_guest.LOGIN, "--port", str(debian_guest.GREETS)]
    words += ["--within", "10m", "--screenshot", picture]
    # What its screen has as text, it is asked itself.
    script = "until grep -q login: /dev/vcs1; do sleep 1; done"
    with listener() as (waiting, addresses):
        for address in addresses:
            tried = reaching(address, waiting.getsockname()[1])
            script += f"; {tried}; case $? in 1|124) ;; *) exit 1;; esac"
        command = shlex.join(["/bin/sh", "-c", script])
        words += ["--command", command, "--json"]
        told = site(*words, patience_s=640).assert_ok().json()
        with pytest.raises(BlockingIOError):
            waiting.accept()
    assert told["passed"]
    assert len(told["met"]) == 4
    colours, lines = pixels(picture.read_bytes())
    assert len({lines[y][x : x + colours] for y in range(len(lines)) for x in range(600)}) > 1
    # 'Debian GNU/Linux … tty1', an empty row, '… login:'; the rest of the screen is empty.
    written = rows_of_text(lines, colours)
    assert len(lines) >= 400
    assert written[1] > 300, written
    assert written[3] > 150, written
    assert sum(written[4:]) == 0, written
