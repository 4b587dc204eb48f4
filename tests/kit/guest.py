"""A real guest, small and quick: Debian's kernel, busybox and the guest agent; it counts on a disk.

Takes some ten seconds to boot without KVM. What it runs is in `INIT`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

AGENT_PORT = "org.qemu.guest_agent.0"
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
)
INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for one in {" ".join(MODULES)}; do insmod /modules/$one.ko; done
until mount -t ext4 /dev/vda /mnt; do sleep 0.1; done
for one in /sys/class/virtio-ports/*; do
  if [ "$(cat $one/name)" = {AGENT_PORT} ]; then port=/dev/${{one##*/}}; fi
done
if [ -n "$port" ]; then
  while true; do qemu-ga --method virtio-serial --path $port --statedir /run; sleep 1; done &
fi
n=0
while true; do
  n=$((n + 1)); echo $n > /mnt/next; mv /mnt/next /mnt/counter; sync
  echo counted $n > /dev/ttyS0; sleep 0.1
done
"""


def _kernels() -> list[Path]:
    return [
        one
        for one in Path("/boot").glob("vmlinuz-*")
        if Path(f"/lib/modules/{one.name[8:]}").is_dir()
    ]


def _agent() -> str | None:
    return shutil.which("qemu-ga", path="/usr/sbin:/usr/bin:/sbin:/bin")


def _busybox() -> str | None:
    found = shutil.which("busybox")
    if found is None:
        return None
    said = subprocess.run(["ldd", found], capture_output=True, text=True, check=False)
    return found if "not a dynamic" in said.stdout + said.stderr else None


needs_guest = pytest.mark.skipif(
    not (_kernels() and _agent() and _busybox() and shutil.which("cpio")),
    reason="needs linux-image-cloud-amd64, busybox-static, qemu-guest-agent and cpio",
)


def build(directory: Path, init: str = INIT) -> tuple[Path, Path]:
    """Make kernel and first file system of the guest; their paths."""
    root = directory / "root"
    for name in ("bin", "modules", "proc", "sys", "dev", "mnt", "run", "etc", "tmp", "var"):
        (root / name).mkdir(parents=True)
    (root / "var" / "run").symlink_to("/run")
    busybox, agent = _busybox(), _agent()
    assert busybox
    assert agent
    shutil.copy(busybox, root / "bin" / "busybox")
    shutil.copy(agent, root / "bin" / "qemu-ga")
    said = subprocess.run(["ldd", agent], capture_output=True, text=True, check=True).stdout
    for word in said.split():
        if word.startswith("/"):
            place = root / word[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, place)
    kernel = _kernels()[-1]
    modules = Path(f"/lib/modules/{kernel.name[8:]}/kernel/drivers")
    for name in MODULES:
        (found,) = modules.rglob(f"{name}.ko")
        shutil.copy(found, root / "modules")
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    names = "\n".join(str(one.relative_to(root)) for one in sorted(root.rglob("*")))
    made = directory / "initrd"
    with made.open("wb") as file:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"],
            cwd=root,
            input=names.encode(),
            stdout=file,
            check=True,
        )
    shutil.rmtree(root)
    shutil.copy(kernel, directory / "kernel")
    return directory / "kernel", made


def disk(path: Path, size: int) -> Path:
    """A qcow2 disk with an empty ext4 on it."""
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(raw)], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)], check=True)
    raw.unlink()
    return path


def counted(image: Path) -> int:
    """What a disk that was read says; it is whole, and was at rest."""
    shown = subprocess.run(
        ["dumpe2fs", "-h", str(image)], capture_output=True, text=True, check=True
    )
    assert "needs_recovery" not in shown.stdout, "its journal would have to be replayed"
    subprocess.run(["e2fsck", "-fn", str(image)], check=True, capture_output=True)
    said = subprocess.run(
        ["debugfs", "-R", "cat /counter", str(image)], capture_output=True, text=True, check=True
    )
    return int(said.stdout)
