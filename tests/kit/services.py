"""A site, an agent and a media server on a `systemd_host`, by the units that Holdfast writes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.kit.asking import ask
from tests.kit.served import until
from tests.kit.systemd_host import ADDRESS, HOST_NAME, PATIENCE_S
from tests.kit.trees import make_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.systemd_host import Installed, SystemdHost

SITE, AGENT, MEDIA = "holdfast.service", "holdfast-agent.service", "holdfast-media.service"
UNITS = {"site": SITE, "agent": AGENT, "media": MEDIA}
TREE = "/srv/tree"
NEAR = HOST_NAME

_DOOR = f"{ADDRESS}:8444"
_POLICY = """
[[policy]]
name = "{name}"
clients = ["{client}"]
storage_unit = "{unit}"
retention = {{last = 9}}
pre_command = {pre}
post_command = {post}
[[policy.selections]]
name = "all"
paths = ["{path}"]
[[policy.schedules]]
name = "yearly"
kind = "differential"
calendar = {{dates = ["2030-12-31"]}}
windows = ["22:00-06:00"]
"""


@dataclass
class Services:
    """What runs there.

    Attributes:
        host: The machine.
        site: The command line of the site, which is the client `NEAR` to itself.
        agent: Of machine ``web1``.
        media: Of media server ``media1``, with a pool on its own disk: storage unit ``branch``.
        secrets: What must not be in a log.
    """

    host: SystemdHost
    site: Installed
    agent: Installed
    media: Installed
    secrets: list[str]

    def of(self, role: str) -> Installed:
        found: Installed = getattr(self, role)
        return found

    def install(self, role: str, *words: str) -> None:
        """As the guide says."""
        self.of(role)("service", "install", "--role", role, *words).assert_ok()
        self.host.systemctl("daemon-reload")
        self.host.systemctl("enable", "--now", UNITS[role])

    def ask(self, path: str) -> Any:
        """What the API says; None where nobody answers."""
        return ask(self.tree("/var/lib/holdfast"), path)

    def await_work(self) -> None:
        """Until all three are at work, and know each other."""
        until(self._at_work, "all to be at work, and connected", PATIENCE_S)

    def _at_work(self) -> bool:
        machines, units = self.ask("/machines"), self.ask("/storage-units")
        return (
            all(self.state(one) == "running" for one in UNITS.values())
            and machines is not None
            and units is not None
            and all(one["connected"] for one in machines["items"])
            and all(
                one["connected"] and not one["problem"] for one in units["items"] if one["server"]
            )
        )

    def state(self, unit: str) -> str:
        return self.host.shown(unit, "SubState")["SubState"]

    def put_policy(
        self,
        name: str,
        client: str,
        unit: str,
        path: str,
        pre: tuple[str, ...] = (),
        post: tuple[str, ...] = (),
    ) -> None:
        def words(command: tuple[str, ...]) -> str:
            return "[" + ", ".join(f'"{one}"' for one in command) + "]"

        text = _POLICY.format(
            name=name, client=client, unit=unit, path=path, pre=words(pre), post=words(post)
        )
        self.host.place("/root/policy.toml").write_text(text)
        self.site("policy", "apply", "/root/policy.toml", "--yes").assert_ok()

    def run(self, policy: str) -> int:
        """Queue a policy's backup; the job."""
        return int(self.site("policy", "run", policy, "--json").assert_ok().json()["job"])

    def job(self, job: int) -> dict[str, Any]:
        """How a job is; queued, where nobody answers."""
        found: dict[str, Any] | None = self.ask(f"/jobs/{job}")
        return {"state": "queued"} if found is None else found

    def ended(self, job: int) -> dict[str, Any]:
        """A job when it has ended."""

        def look() -> dict[str, Any] | None:
            found = self.job(job)
            return found if found["state"] == "ended" else None

        found = until(look, f"job {job} to end", PATIENCE_S)
        assert found is not None
        return found

    def completed(self, job: int) -> dict[str, Any]:
        """The same, with a good end."""
        found = self.ended(job)
        assert found["outcome"] == "completed", self.site("events", str(job)).text
        return found

    def tree(self, path: str = TREE) -> Path:
        return self.host.place(path)


def make_everything(root: Path) -> None:
    """A tree of what only root may make and read, besides all else."""
    make_tree(root)
    os.chown(root / "noise", 1234, 4321)
    (root / "noise").chmod(0o6755)
    (root / "nobody reads it").write_text("but who may read everything")
    os.chown(root / "nobody reads it", 65534, 65534)
    (root / "nobody reads it").chmod(0)
    closed = root / "closed"
    closed.mkdir()
    (closed / "inside").write_text("as well")
    os.chown(closed, 4321, 4321)
    closed.chmod(0o000)
    os.mknod(root / "a device", 0o020600, os.makedev(1, 3))
    # cap_net_raw=ep, as capabilities(7) has it on disk.
    capability = bytes.fromhex("0100000200200000" + "00" * 12)
    (root / "a program").write_bytes(b"#!/bin/true\n")
    os.setxattr(root / "a program", "security.capability", capability)
    os.setxattr(root / "a program", "user.note", b"by hand")
    os.setxattr(root / "a program", "trusted.note", b"by root")


def installed(host: SystemdHost) -> Services:
    """Have all three installed and at work."""
    roles = {role: host.holdfast(f"/var/lib/holdfast-{role}") for role in ("agent", "media")}
    site = host.holdfast("/var/lib/holdfast")
    found = Services(host, site, roles["agent"], roles["media"], [])
    site("init").assert_ok()
    with host.place("/var/lib/holdfast/config.toml").open("a") as file:
        file.write(f'\n[serve]\nmachines = "{_DOOR}"\n')
        file.write('[machines]\nheartbeat = "2s"\n')
    found.install("site")
    host.place("/srv/disk").mkdir()
    for role, name in (("agent", "web1"), ("media", "media1")):
        token = site("machine", "token", "--role", role, "--json").assert_ok().json()["token"]
        joining = ("enroll", f"https://{_DOOR}", "--token", token, "--name", name, "--role", role)
        found.of(role)(*joining).assert_ok()
        found.secrets.append(token)
        found.secrets += host.place(f"/var/lib/holdfast-{role}/machine/key.pem").read_text().split()
    found.install("agent")
    found.install("media", "--disk", "/srv/disk")
    found.await_work()
    site("storage", "create", "branch", "--on", "media1", "--pool", "/srv/disk/pool").assert_ok()
    make_everything(found.tree())
    found.await_work()
    return found
