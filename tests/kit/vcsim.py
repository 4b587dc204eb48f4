"""A vCenter of the test's own: govmomi's simulator, whose datastores are directories.

What it adds to the simulator, and why, stands in `tests/kit/vcsim/main.go`.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import ipaddress
import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.sources.machines.providers import Credentials
from tests.kit.disk_images import fill
from tests.kit.served import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "correct horse"


@functools.cache
def binary() -> Path:
    """Where the simulator is, once it was built."""
    asked = [str(Path(__file__).parents[1] / "install-vcsim"), "--where"]
    return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())


def why_no_vcsim() -> str | None:
    """What is in the way of tests with it; None where nothing is."""
    try:
        import pyVmomi  # noqa: F401
    except ImportError:
        return "pyVmomi is not installed: see the extra 'vm'"
    return None if binary().exists() else "vcsim is not built: run tests/install-vcsim"


@dataclass(frozen=True)
class Certificate:
    """One that names 127.0.0.1, signed by itself."""

    pem: str
    key: str
    thumbprint: str

    @classmethod
    def new(cls) -> Certificate:
        """Another one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vcenter")])
        now = dt.datetime.now(dt.UTC)
        address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return cls(
            made.public_bytes(serialization.Encoding.PEM).decode(),
            secret.decode(),
            hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest(),
        )


class Vcsim:
    """A simulator that runs."""

    def __init__(self, directory: Path, *options: str) -> None:
        """Start it.

        Args:
            directory: For all that it keeps.
            options: More words: ``-plain`` to add nothing to the simulator, ``-esx``.
        """
        self._session: Any = None
        self.state = directory / "vcsim-state"
        self.state.mkdir(exist_ok=True)
        self.certificate = Certificate.new()
        (self.state / "cert").write_text(self.certificate.pem)
        (self.state / "key").write_text(self.certificate.key)
        words = [str(binary()), "-state", str(self.state), "-password", PASSWORD, *options]
        words += ["-tlscert", str(self.state / "cert"), "-tlskey", str(self.state / "key")]
        with (self.state / "log").open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "TMPDIR": str(self.state)},
            )
        assert self.process.stdout is not None
        self.host = self.process.stdout.readline().strip()
        assert self.host, (self.state / "log").read_text()

    @property
    def url(self) -> str:
        """With its certificate pinned."""
        return f"https://{self.host}/?thumbprint={self.certificate.thumbprint}"

    @property
    def credentials(self) -> Credentials:
        """Of who may do everything."""
        return Credentials("backup", PASSWORD)

    def say(self, word: str) -> None:
        """Have it do something from now on: see its sources."""
        (self.state / word).touch()

    def unsay(self, word: str) -> None:
        """No longer."""
        (self.state / word).unlink(missing_ok=True)

    def connect(self) -> Any:
        """A session of the test's own, which ends with the simulator."""
        from pyVim.connect import SmartConnect

        if self._session is None:
            host, _, port = self.host.partition(":")
            self._session = SmartConnect(
                host=host,
                port=int(port),
                user="backup",
                pwd=PASSWORD,
                disableSslCertValidation=True,
            )
        return self._session

    def find(self, known: str) -> Any:
        """A machine by its uuid."""
        found = self.connect().content.searchIndex.FindByUuid(None, known, True, True)
        assert found is not None, known
        return found

    def make(self, name: str, *sizes: int, modes: tuple[str, ...] = ()) -> str:
        """Make a machine that runs, with something on each disk; its uuid.

        Args:
            name: Of it.
            sizes: Of its disks.
            modes: Of its disks, where they are not the usual one.
        """
        from pyVmomi import vim

        content = self.connect().content
        center = content.rootFolder.childEntity[0]
        known = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        add = vim.vm.device.VirtualDeviceSpec.Operation.add
        controller = vim.vm.device.ParaVirtualSCSIController(
            key=-1, busNumber=0, sharedBus="noSharing"
        )
        card = vim.vm.device.VirtualVmxnet3(
            key=-2,
            backing=vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="VM Network"),
            addressType="assigned",
            macAddress=f"00:50:56:80:00:{len(name):02x}",
            wakeOnLanEnabled=False,
        )
        changes = [
            vim.vm.device.VirtualDeviceSpec(operation=add, device=one) for one in (controller, card)
        ]
        for at, size in enumerate(sizes):
            backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
                fileName=f"[LocalDS_0] {name}/{name}_{at}.vmdk",
                diskMode=modes[at] if at < len(modes) else "persistent",
            )
            disk = vim.vm.device.VirtualDisk(
                key=-10 - at,
                controllerKey=-1,
                unitNumber=at,
                capacityInBytes=size,
                capacityInKB=size // 1024,
                backing=backing,
            )
            create = vim.vm.device.VirtualDeviceSpec.FileOperation.create
            changes.append(
                vim.vm.device.VirtualDeviceSpec(operation=add, fileOperation=create, device=disk)
            )
        spec = vim.vm.ConfigSpec(
            name=name,
            instanceUuid=known,
            guestId="debian12_64Guest",
            memoryMB=512,
            numCPUs=2,
            version="vmx-19",
            files=vim.vm.FileInfo(vmPathName=f"[LocalDS_0] {name}/{name}.vmx"),
            deviceChange=changes,
        )
        host = center.hostFolder.childEntity[0]
        task = center.vmFolder.CreateVM_Task(spec, host.resourcePool, host.host[0])
        wait(task)
        made = task.info.result
        for at, (path, size) in enumerate(zip(self.flats(known).values(), sizes, strict=True)):
            os.truncate(path, size)
            fill(path, "raw", seed=10 * at + len(name))
        (path.parent / f"{name}.vmx").write_text(f'displayName = "{name}"\n')
        wait(made.PowerOnVM_Task())
        return known

    def flats(self, known: str) -> dict[str, Path]:
        """Where the bytes of a machine's disks are, by their names."""
        from holdfast.sources.machines.vmware import disks

        made = self.find(known)
        stores = {one.name: one.summary.url for one in made.datastore}
        return {
            one.name: Path(stores[one.datastore], one.path.replace(".vmdk", "-flat.vmdk"))
            for one in disks.of_devices(made.config.hardware.device)
        }

    def snapshots(self) -> list[str]:
        """Names of all snapshots of all machines."""
        from pyVmomi import vim, vmodl

        content = self.connect().content
        collector = vmodl.query.PropertyCollector
        kind = vim.VirtualMachine
        view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
        specs = [
            collector.FilterSpec(
                propSet=[collector.PropertySpec(type=kind, pathSet=["snapshot"])],
                objectSet=[collector.ObjectSpec(obj=one)],
            )
            for one in view.view
        ]
        told = content.propertyCollector.RetrieveContents(specs) if specs else []
        return [one for each in told for said in each.propSet for one in _names(said.val)]

    def close(self) -> None:
        """End it."""
        if self._session is not None:
            self._session._stub.DropConnections()
        self.process.kill()
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()


def wait(task: Any) -> None:
    """Wait for a task that has to succeed. The library's own stumbles over some that still run."""
    until(lambda: str(task.info.state) in ("success", "error"), "a task")
    assert str(task.info.state) == "success", task.info.error


def _names(info: Any) -> Iterator[str]:
    left = list(info.rootSnapshotList)
    while left:
        one = left.pop()
        yield one.name
        left.extend(one.childSnapshotList)
