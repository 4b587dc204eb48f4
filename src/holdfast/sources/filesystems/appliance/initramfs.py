"""The appliance's first and only file system: made of this machine's kernel modules and Python.

Must not take more along than the guest needs. Invariant: what is in it has the paths that it has
here, so that the same interpreter finds itself.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import holdfast
from holdfast.sources.filesystems.appliance.guest import RECOVER
from holdfast.sources.filesystems.entries import FilesUnreadable

BOOT = Path("/boot")
LIB = Path("/lib/modules")

GUEST = "holdfast.sources.filesystems.appliance.guest"
NTFS = "holdfast.sources.filesystems.appliance.ntfs"
_READER = "pytsk3"

_WANTED = (
    *("virtio_pci", "virtio_blk", "virtio_console"),
    *("crc32c_generic", "crc32c-intel", "xxhash_generic", "sha256_generic", "blake2b_generic"),
    *("ext4", "xfs", "btrfs"),
)
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_DIRECTORIES = ("dev", "proc", "sys", "mnt", "modules", "tmp")

# what the guest imports, and what the loader maps for it
_ASK = """
import sys, json
sys.path[:] = [sys.argv[1], *sys.path, *sys.argv[3:]]
import importlib, traceback, linecache, encodings.ascii, encodings.utf_16_le
for one in sys.argv[2].split():
    importlib.import_module(one)
files = set()
for one in list(sys.modules.values()):
    for name in ("__file__", "__cached__"):
        place = getattr(one, name, None)
        if place:
            files.add(place)
with open("/proc/self/maps") as maps:
    files |= {line.split(None, 5)[5].strip() for line in maps if "/" in line}
print(json.dumps(sorted(files)))
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of this machine that a guest can run."""

    image: Path
    modules: Path


def find_kernel(boot: Path = BOOT, lib: Path = LIB) -> Kernel:
    """The newest kernel that is installed with its modules; it need not be the one that runs.

    Raises:
        FilesUnreadable: There is none.
    """
    found = sorted(
        boot.glob("vmlinuz-*"),
        key=lambda one: [
            (int(part), "") if part.isdigit() else (0, part)
            for part in one.name.replace("-", ".").split(".")
        ],
    )
    for image in reversed(found):
        modules = lib / image.name.removeprefix("vmlinuz-")
        if (modules / "modules.dep").exists() and os.access(image, os.R_OK):
            return Kernel(image, modules)
    raise FilesUnreadable(
        "there is no kernel for a guest here: install one, such as linux-image-amd64"
    )


def find_replay() -> tuple[Path, Path] | None:
    """What replays the log of an NTFS and reads its files, if both are here."""
    program = shutil.which("ntfsrecover", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    reader = importlib.util.find_spec(_READER)
    if program is None or reader is None or reader.origin is None:
        return None
    return Path(program), Path(reader.origin)


@functools.lru_cache(maxsize=2)
def build(kernel: Kernel, replay: tuple[Path, Path] | None = None) -> bytes:
    """Make it, as the kernel unpacks it.

    Args:
        kernel: That the guest runs.
        replay: From `find_replay`, for an NTFS.

    Raises:
        FilesUnreadable: What it is made of is not here.
    """
    archive = _Archive()
    for name in _DIRECTORIES:
        archive.directory(f"/{name}")
    # what the guest says when it can't begin
    archive.device("/dev/console", 5, 1)
    for number, module in enumerate(_modules(kernel)):
        suffix = next(one for one in _SUFFIXES if module.name.endswith(one))
        archive.file(f"/modules/{number:03d}-{module.name.removesuffix(suffix)}{suffix}", module)
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    source = os.path.dirname(next(iter(holdfast.__path__)))
    modules, further = ([GUEST, NTFS], [str(replay[1].parent)]) if replay else ([GUEST], [])
    for place in [python, _loader(python), *_python_files(python, source, modules, further)]:
        archive.file(place, Path(place))
        for name in _other_names(place):
            archive.link(name, os.path.basename(place))
    if replay:
        archive.file(RECOVER, replay[0])
        archive.file(_loader(str(replay[0])), Path(_loader(str(replay[0]))))
        for library in _libraries(str(replay[0])):
            archive.file(str(library), library)
    script = (
        f"#!{python} -IS\nimport sys\nsys.path[:] = [{source!r}, *sys.path, *{further!r}]\n"
        f"from {GUEST} import main\nmain()\n"
    )
    archive.data("/init", script.encode(), 0o100755)
    return archive.finish()


def _modules(kernel: Kernel) -> list[Path]:
    """Modules in the order in which they can be loaded."""
    needs: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        name, _, others = line.partition(":")
        needs[name] = others.split()
    by_name = {os.path.basename(one).split(".ko")[0]: one for one in needs}
    found: dict[str, None] = {}
    for wanted in _WANTED:
        # what is not there is built in, or not wanted by this kernel
        if wanted in by_name:
            place = by_name[wanted]
            found |= dict.fromkeys([*reversed(needs[place]), place])
    return [kernel.modules / one for one in found]


def _python_files(python: str, source: str, modules: list[str], further: list[str]) -> list[str]:
    asked = subprocess.run(
        [python, "-IS", "-c", _ASK, source, " ".join(modules), *further],
        capture_output=True,
        check=False,
        timeout=60,
        env={},
    )
    try:
        found = json.loads(asked.stdout)
    except ValueError as error:
        raise FilesUnreadable("the guest's own program can't be put together") from error
    return [one for one in found if os.path.isfile(one)]


def _other_names(library: str) -> list[str]:
    """Links to a library beside it: the loader asks for ``libffi.so.8``, not for what that is."""
    directory, name = os.path.split(library)
    stem, dot, _ = name.partition(".so")
    if not dot:
        return []
    with os.scandir(directory) as beside:
        return [
            one.path
            for one in beside
            if one.name.startswith(f"{stem}.so")
            and one.is_symlink()
            and os.path.realpath(one.path) == library
        ]


def _libraries(program: str) -> list[Path]:
    """What the loader maps for a program, where it looks for it."""
    asked = subprocess.run(
        [_loader(program), "--list", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"LC_ALL": "C"},
    )
    if asked.returncode != 0:
        raise FilesUnreadable(f"the libraries of {program} can't be found")
    found = [line.split()[2] for line in asked.stdout.splitlines() if " => /" in line]
    return [Path(os.path.realpath(os.path.dirname(one))) / os.path.basename(one) for one in found]


def _loader(program: str) -> str:
    """What the kernel starts a program by: its ``PT_INTERP``."""
    data = Path(program).read_bytes()
    at, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, offset, length = struct.unpack_from("<I4xQ16xQ", data, at + number * size)
        if kind == 3:
            return data[offset : offset + length].rstrip(b"\0").decode()
    raise FilesUnreadable(f"{program} is no program that a guest can start")


class _Archive:
    """A cpio archive, as the kernel takes it (``newc``)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._known: set[str] = set()
        self._next = 1

    def directory(self, path: str) -> None:
        """Add a directory, and those above it."""
        if path in ("", "/") or path in self._known:
            return
        self.directory(os.path.dirname(path))
        self._known.add(path)
        self._add(path, b"", 0o040755, 0)

    def file(self, path: str, of: Path) -> None:
        """Add a copy of a file."""
        if path not in self._known:
            status = of.stat()
            self.data(path, of.read_bytes(), 0o100755, int(status.st_mtime))

    def data(self, path: str, content: bytes, mode: int, mtime: int = 0) -> None:
        """Add a file."""
        self.directory(os.path.dirname(path))
        self._known.add(path)
        self._add(path, content, mode, mtime)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, target.encode(), 0o120777, 0)

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._add(path, b"", 0o020600, 0, (major, minor))

    def finish(self) -> bytes:
        """The whole archive."""
        self._add("TRAILER!!!", b"", 0, 0)
        return b"".join(self._parts)

    def _add(
        self, path: str, data: bytes, mode: int, mtime: int, device: tuple[int, int] = (0, 0)
    ) -> None:
        name = path.lstrip("/").encode() + b"\0"
        fields = (self._next, mode, 0, 0, 1, mtime, len(data), 0, 0, *device, len(name), 0)
        self._next += 1
        head = b"070701" + b"".join(b"%08X" % one for one in fields) + name
        for part in (head, data):
            self._parts += (part, bytes(-len(part) % 4))
