"""A real guest that reads from its disk all over and writes to it, and says so on its console.

What it reads it compares with sums that are on the disk, past its page cache: an error of its disk,
or other bytes than those that were backed up, end in ``failed`` on its console.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from random import Random

from tests.kit.guest import MODULES

PIECE = 256 * 1024
PIECES = 96
READY = "the guest is ready"


def init(pieces: int = PIECES, stride: int = 37) -> str:
    """What the guest runs: of so many pieces it reads every so-manieth, round and round."""
    return f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for one in {" ".join(MODULES)}; do insmod /modules/$one.ko; done
until mount -t ext4 /dev/vda /mnt; do sleep 0.1; done
n=0
if [ -e /mnt/counter ]; then n=$(cat /mnt/counter); fi
echo "{READY}" > /dev/ttyS0
while true; do
  n=$((n + 1)); at=$((n * {stride} % {pieces}))
  echo 3 > /proc/sys/vm/drop_caches
  found=$(dd if=/mnt/data bs={PIECE} skip=$at count=1 2>/dev/null | md5sum)
  wanted=$(sed -n $((at + 1))p /mnt/sums)
  if [ "${{found%% *}}" != "$wanted" ]; then echo "failed at $at: $found" > /dev/ttyS0; fi
  echo $n > /mnt/next && mv /mnt/next /mnt/counter && sync || echo failed to write > /dev/ttyS0
  echo counted $n > /dev/ttyS0; sleep 0.05
done
"""


INIT = init()


def disk(path: Path, size: int = 64 << 20, pieces: int = PIECES) -> Path:
    """A disk of the guest, qcow2, with what it reads."""
    random = Random(7)
    content = path.parent / f"{path.stem}-content"
    content.mkdir()
    data = [random.randbytes(PIECE) for _ in range(pieces)]
    (content / "data").write_bytes(b"".join(data))
    sums = [hashlib.md5(one).hexdigest() for one in data]
    (content / "sums").write_text("\n".join(sums) + "\n")
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(content), str(raw)], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)], check=True)
    raw.unlink()
    return path


def said(log: Path) -> str:
    """All that came over its console."""
    return log.read_text("utf-8", "replace") if log.exists() else ""


def counted(log: Path) -> int:
    """How far it has counted since it was started; it has found nothing wrong."""
    text = said(log)
    # A kernel that is short of time says of itself that something failed.
    assert not re.search(r"(?m)^failed (at|to)\b", text), text[-2000:]
    found = re.findall(r"counted (\d+)", text.rpartition(READY)[2])
    return int(found[-1]) if found else 0


def content_of(place: str, image_format: str, directory: Path) -> tuple[int, bytes]:
    """What a disk that is at rest has: the counter, and the data."""
    raw = directory / "read.raw"
    words = ["qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", place, str(raw)]
    subprocess.run(words, check=True)
    subprocess.run(["e2fsck", "-fy", str(raw)], check=False, capture_output=True)
    found = []
    for name in ("counter", "data"):
        asked = ["debugfs", "-R", f"cat /{name}", str(raw)]
        found.append(subprocess.run(asked, check=True, capture_output=True).stdout)
    raw.unlink()
    return int(found[0]), found[1]
