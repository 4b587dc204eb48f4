"""Open whatever runs virtual machines, by the name of its kind.

Must not import a hypervisor's library before somebody asks for that kind: most machines have none
of them. Invariant: what is raised names what is missing, and how it is had.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from holdfast.base.errors import Invalid, LibraryMissing, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from holdfast.sources.machines.provider import Provider


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens a hypervisor.

    Attributes:
        user: Who asks; empty where the socket or the key of this machine is enough.
        password: Of that user; never shown.
        certificate: PEM of the authority that the hypervisor's certificate is to be of; empty for
            those that this machine trusts.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """A kind of hypervisor.

    Attributes:
        name: What policies call it.
        title: What it is, for people.
        module: Where it is made; it has a function ``open_url(url, credentials)``.
        library: What has to be importable besides; empty for nothing.
        package: What is installed to have that.
        needs: What Debian packages that takes, for the hint.
        disk_formats: What disks of new machines can be, the usual one first.
        no_others: Why they can't be anything else, in words.
        runs_images: Whether it can run a machine from its image.
    """

    name: str
    title: str
    module: str
    library: str = ""
    package: str = ""
    needs: str = ""
    disk_formats: tuple[str, ...] = ("qcow2", "raw", "vmdk", "vhdx", "vdi")
    no_others: str = "Holdfast writes no such disks"
    runs_images: bool = False

    def format_of(self, wanted: str | None) -> str:
        """What disks of a new machine become.

        Args:
            wanted: What somebody wants; None for the usual one.

        Raises:
            Invalid: This kind can't have such disks.
        """
        if wanted is not None and wanted not in self.disk_formats:
            raise Invalid(
                f"{self.title} can't have disks of the format '{wanted}': {self.no_others}",
                f"use {' or '.join(self.disk_formats)}, or say none; a directory (--to-dir) takes "
                "every format",
            )
        return wanted or self.disk_formats[0]


KINDS: dict[str, ProviderKind] = {
    kind.name: kind
    for kind in (
        ProviderKind(
            "libvirt",
            "QEMU under libvirt",
            "holdfast.sources.machines.libvirt",
            "libvirt",
            "libvirt-python",
            "libvirt-dev, pkg-config, python3-dev and gcc, as it is built here",
            disk_formats=("qcow2", "raw", "vmdk", "vdi"),
            no_others="libvirt itself knows no such disks",
            runs_images=True,
        ),
        ProviderKind(
            "qmp", "QEMU without libvirt", "holdfast.sources.machines.qmp", runs_images=True
        ),
        ProviderKind(
            "vmware",
            "VMware",
            "holdfast.sources.machines.vmware",
            "pyVmomi",
            "pyvmomi",
            disk_formats=("vmdk",),
            no_others="ESXi runs machines from VMDK disks alone",
        ),
        ProviderKind(
            "diskfiles", "files of disks", "holdfast.sources.machines.diskfiles", "lxml", "lxml"
        ),
    )
}
"""Every kind, by its name."""


def open_provider(kind: str, url: str, credentials: Credentials | None = None) -> Provider:
    """Open a hypervisor.

    Args:
        kind: One of `KINDS`.
        url: Where it is, as that kind writes it: ``qemu:///system``, ``/run/machines``.
        credentials: What opens it.

    Returns:
        The provider. Nobody may have been asked yet: what can't be reached is told by the first
        question.

    Raises:
        Invalid: There is no such kind, or the URL is not one of it.
        LibraryMissing: Its library is not installed here.
        Unsupported: This Holdfast can't do that kind.
    """
    known = KINDS.get(kind)
    if known is None:
        raise Invalid(
            f"'{kind}' is not a kind of hypervisor", f"use one of: {', '.join(sorted(KINDS))}"
        )
    if known.library:
        _import(known.library, known)
    module = _import(known.module, known)
    opener = cast("Callable[[str, Credentials], Provider]", module.open_url)
    return opener(url, credentials or Credentials())


def _import(name: str, kind: ProviderKind) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and kind.module.startswith(error.name):
            raise Unsupported(
                f"this Holdfast knows nothing of {kind.title}", "use a newer one"
            ) from error
        wanted = kind.package if error.name == kind.library else str(error.name)
        raise LibraryMissing(
            f"{kind.title} needs the Python library '{wanted}', which is not installed here",
            _how(wanted, kind),
        ) from error
    except ImportError as error:
        raise LibraryMissing(
            f"the Python library of {kind.title} can't be loaded: {error}",
            _how(kind.package or name, kind),
        ) from error


def _how(package: str, kind: ProviderKind) -> str:
    needs = f" (it needs {kind.needs})" if kind.needs else ""
    return f"pip install 'holdfast[vm]', or {package} alone{needs}"
