"""What `service install` writes, started by a real systemd: all roles on one machine."""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.kit.served import until
from tests.kit.services import AGENT, MEDIA, NEAR, SITE, TREE, UNITS
from tests.kit.systemd_host import PATH, PATIENCE_S, needs_systemd_host
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.services import Services

pytestmark = [needs_systemd_host, pytest.mark.timeout(600), pytest.mark.slow]

MIB = 1 << 20
CHOWN, SYS_ADMIN, MKNOD, SYSLOG = 1 << 0, 1 << 21, 1 << 27, 1 << 34
ROLES = tuple(UNITS)
CLIENTS = {"site": (NEAR, "default"), "agent": ("web1", "branch")}
"""Who reads the files in the unit of a role, and where to; what ``web1`` has goes by ``media1``."""


MACHINES = """
[[policy]]
name = "estate"
type = "machines"
active = false
machines = {query = "name=guest*"}
retention = {daily = 7}
[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


def status(services: Services, unit: str) -> dict[str, str]:
    """What the kernel says of a unit's process."""
    text = services.tree(f"/proc/{services.host.main_pid(unit)}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def inside(services: Services, unit: str, *words: str) -> bool:
    """Whether a program ends well with the mounts that a unit has."""
    pid = str(services.host.main_pid(unit))
    try:
        services.host.run("nsenter", "--target", pid, "--mount", *words)
    except AssertionError:
        return False
    return True


def fill(directory: Path, mib: int) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(mib // 4):
        (directory / f"large {number}").write_bytes(os.urandom(4 * MIB))


@pytest.mark.parametrize("role", ROLES)
def test_systemd_applies_what_the_unit_says(services: Services, role: str) -> None:
    host, unit = services.host, UNITS[role]
    shown = host.shown(unit, "ActiveState", "Type", "UnitFileState", "NRestarts", "LimitCORE")
    assert shown == {
        "Type": "notify",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "NRestarts": shown["NRestarts"],
        "LimitCORE": "0",
    }
    found = status(services, unit)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert not int(found["CapBnd"], 16) & SYSLOG
    all_files = SYS_ADMIN | MKNOD | CHOWN
    assert int(found["CapBnd"], 16) & all_files == (0 if role == "media" else all_files)
    # Nobody changes the kernel's settings; only a media server is kept from other files.
    assert not inside(services, unit, "touch", "/sys/fs/cgroup/new")
    services.tree("/tmp/of the machine").touch()
    assert inside(services, unit, "test", "-e", "/tmp/of the machine") == (role != "media")
    assert inside(services, unit, "touch", "/usr/new") == (role != "media")
    assert inside(services, unit, "touch", f"{services.of(role).home}/new")
    assert inside(services, unit, "touch", "/srv/disk/new")


@pytest.mark.parametrize("role", CLIENTS)
def test_everything_is_read_and_comes_back_under_the_units_bounds(
    services: Services, role: str
) -> None:
    client, unit = CLIENTS[role]
    # As those do who take a snapshot first, and mount it where the backup finds it.
    services.tree("/srv/shown").mkdir(exist_ok=True)
    pre = ("/bin/mount", "--bind", TREE, "/srv/shown")
    services.put_policy(
        f"whole-{role}", client, unit, "/srv/shown", pre, ("/bin/umount", "/srv/shown")
    )
    image = services.completed(services.run(f"whole-{role}"))["image_id"]
    assert not any(services.tree("/srv/shown").iterdir())
    words = ("restore", image, "--to", f"/srv/back-{role}", "--client", client, "--verify")
    services.completed(int(services.site(*words).assert_ok().text))
    assert_same_tree(services.tree(), services.tree(f"/srv/back-{role}/srv/shown"))


def test_commands_of_policies_may_become_other_users(services: Services) -> None:
    command = ("/sbin/runuser", "-u", "nobody", "--", "/usr/bin/id", "-u")
    services.put_policy("as-nobody", "web1", "branch", "/etc/hostname", command)
    job = services.run("as-nobody")
    services.completed(job)
    assert "65534" in services.site("events", str(job)).text


def test_a_proxy_reads_machines_and_the_files_on_their_disks(services: Services) -> None:
    """qemu-nbd and the sandboxed reader of file systems are started in the agent's unit."""
    for module in ("lxml", "pytsk3"):
        pytest.importorskip(module, reason=f"{module} is not installed: see the extra 'vm'")
    if shutil.which("qemu-nbd") is None or shutil.which("mkfs.ext4", path=PATH) is None:
        pytest.skip("needs qemu-utils and e2fsprogs")
    host, site = services.host, services.site
    make = """
    mkdir -p /srv/machines /srv/content/etc; echo hello > /srv/content/etc/motd
    truncate -s 24M /srv/disk.raw; mkfs.ext4 -q -d /srv/content /srv/disk.raw
    qemu-img convert -f raw -O qcow2 /srv/disk.raw /srv/machines/guest1.qcow2
    """
    host.run("sh", "-ec", make)
    shelf = ("--kind", "diskfiles", "--at", "/srv/machines", "--proxy", "web1")
    site("hypervisor", "add", "shelf", *shelf).assert_ok()
    services.tree("/root/machines.toml").write_text(MACHINES)
    site("policy", "apply", "/root/machines.toml", "--yes").assert_ok()
    job = services.run("estate")
    services.completed(job)
    known = site("images", "--json").assert_ok().json_lines()
    (image,) = [one["id"] for one in known if one["host"] == "guest1"]
    words = ("restore-machine", image, "--to-dir", "/srv/back-machine", "--format", "raw")
    restored = site(*words, "--client", "web1", "--json").assert_ok().json()["job"]
    assert services.ended(restored)["outcome"].startswith("completed")
    disk = services.tree("/srv/disk.raw").read_bytes()
    back = [one for one in services.tree("/srv/back-machine").rglob("*") if one.is_file()]
    assert disk in [one.read_bytes() for one in back if one.stat().st_size == len(disk)]
    inside = ("restore", f"{image}:/disk0/fs/etc", "--to", "/srv/back-files", "--client", "web1")
    services.completed(int(site(*inside).assert_ok().text))
    (motd,) = services.tree("/srv/back-files").rglob("motd")
    assert motd.read_text() == "hello\n"


def test_a_restart_of_any_of_them_costs_a_job_nothing(services: Services) -> None:
    """Of the agent's job all three have a part; it is at work when each goes."""
    fill(services.tree("/srv/large"), 48)
    services.put_policy("large", "web1", "branch", "/srv/large")
    # slow enough to be still at work when the third of them goes
    services.site("bandwidth", "set", "slow", "--limit", "1M").assert_ok()
    try:
        job = services.run("large")
        for unit in (MEDIA, AGENT, SITE):

            def at_work() -> bool:
                found = services.job(job)
                assert found["state"] != "ended", f"over too soon: {found}"
                return found["state"] == "active" and bool(found["counters"]["new_bytes"])

            until(at_work, "data to be on its way", PATIENCE_S)
            began = time.monotonic()
            services.host.systemctl("restart", unit)
            took = time.monotonic() - began
            assert took < 60, f"{unit} took {took} s"
            assert services.host.shown(unit, "Result")["Result"] == "success"
    finally:
        services.site("bandwidth", "remove", "slow").assert_ok()
    done = services.completed(job)
    words = ("restore", done["image_id"], "--to", "/srv/back-large", "--client", "web1", "--verify")
    services.completed(int(services.site(*words).assert_ok().text))
    assert_same_tree(services.tree("/srv/large"), services.tree("/srv/back-large/srv/large"))
    assert images(services, "web1:/srv/large") == [done["image_id"]]


def test_a_site_that_stops_in_the_middle_of_its_own_backup_finishes_it_later(
    services: Services,
) -> None:
    fill(services.tree("/srv/own"), 64)
    services.put_policy("own", NEAR, "default", "/srv/own")
    job = services.run("own")
    until(lambda: services.job(job)["state"] != "queued", "it to begin", PATIENCE_S)
    began = time.monotonic()
    services.host.systemctl("stop", SITE)
    assert time.monotonic() - began < 60
    shown = services.host.shown(SITE, "Result", "ActiveState")
    assert shown == {"Result": "success", "ActiveState": "inactive"}
    services.host.systemctl("start", SITE)
    services.completed(job)
    assert len(images(services, f"{NEAR}:/srv/own")) == 1


def images(services: Services, source: str) -> list[str]:
    words = ("images", "--json")
    known = services.site(*words).assert_ok().json_lines()
    return [one["id"] for one in known if one["source"] == source]


def is_another(services: Services, unit: str, process: int) -> bool:
    return services.host.main_pid(unit) not in (0, process)


def test_those_that_are_killed_come_back_by_themselves(services: Services) -> None:
    before = {}
    for unit in UNITS.values():
        before[unit] = services.host.main_pid(unit)
        services.host.run("kill", "-9", str(before[unit]))
    for unit, was in before.items():
        until(partial(is_another, services, unit, was), "a new one", PATIENCE_S)
    services.await_work()
    for unit in before:
        assert int(services.host.shown(unit, "NRestarts")["NRestarts"]) >= 1


def test_a_start_that_fails_is_told_to_who_starts_it(services: Services) -> None:
    """It is not up before it can do its work, and the journal says why, as an error."""
    for role, in_the_way in (("agent", "machine.toml"), ("site", "config.toml")):
        file = services.tree(f"{services.of(role).home}/{in_the_way}")
        services.host.systemctl("stop", UNITS[role])
        file.rename(f"{file}.away")
        try:
            said = services.host.run("systemctl", "start", UNITS[role], check=False)
            assert services.state(UNITS[role]) in ("auto-restart", "failed"), said
        finally:
            file.with_name(f"{in_the_way}.away").rename(file)
        wrong = [one for one in services.host.journal(UNITS[role]) if one["PRIORITY"] == "3"]
        assert any(one["MESSAGE"].startswith("error: ") for one in wrong), wrong
    # A port that is taken.
    services.host.systemctl("stop", MEDIA)
    services.host.run("mkdir", "-p", f"/run/systemd/system/{MEDIA}.d")
    drop_in = services.tree(f"/run/systemd/system/{MEDIA}.d/port.conf")
    drop_in.write_text("[Service]\nEnvironment=HOLDFAST_MEDIA_LISTEN=0.0.0.0:8444\n")
    services.host.systemctl("daemon-reload")
    for unit in (SITE, AGENT):
        services.host.systemctl("start", unit)
    try:
        services.host.run("systemctl", "start", MEDIA, check=False)
        assert services.state(MEDIA) in ("auto-restart", "failed")
        wrong = [one for one in services.host.journal(MEDIA) if one["PRIORITY"] == "3"]
        assert any("can't listen on 0.0.0.0:8444" in one["MESSAGE"] for one in wrong), wrong
    finally:
        drop_in.unlink()
        services.host.systemctl("daemon-reload")
        services.host.systemctl("restart", MEDIA)
    services.await_work()


def warned(services: Services, unit: str) -> bool:
    return any(
        one["PRIORITY"] == "4" and "trying again" in one["MESSAGE"]
        for one in services.host.journal(unit)
    )


def test_the_journal_has_plain_lines_with_priorities_and_no_secret(services: Services) -> None:
    # The two others warn that they can't reach it.
    services.host.systemctl("stop", SITE)

    for unit in (AGENT, MEDIA):
        until(partial(warned, services, unit), "it to warn", PATIENCE_S)
    services.host.systemctl("start", SITE)
    services.await_work()
    for unit in UNITS.values():
        records = services.host.journal(unit)
        own = [one for one in records if one.get("SYSLOG_IDENTIFIER") == "holdfast"]
        assert own
        for one in own:
            text = one["MESSAGE"]
            assert isinstance(text, str), text
            assert not text.startswith(("<", "INFO", "WARNING", "ERROR")), text
            assert "Traceback" not in text
            assert text.isprintable(), text
    key = services.tree("/var/lib/holdfast/pool.key").read_text().split()
    journal = services.host.run("journalctl", "--output=cat", "--no-pager", "--all")
    for secret in (*services.secrets, *key):
        assert len(secret) < 16 or "PRIVATE" in secret or secret not in journal


def test_a_disk_that_is_mounted_later_is_written_to(services: Services) -> None:
    host = services.host
    services.tree("/srv/later").mkdir()
    services.install("media", "--disk", "/srv/disk", "--disk", "/srv/later")
    host.systemctl("restart", MEDIA)
    services.await_work()
    host.run("mount", "-t", "tmpfs", "-o", "mode=700", "disk", "/srv/later")
    make = ("storage", "create", "later", "--on", "media1", "--pool", "/srv/later/pool")
    services.site(*make).assert_ok()
    assert (services.tree("/srv/later") / "pool").is_dir()
    elsewhere = ("storage", "create", "elsewhere", "--on", "media1", "--pool", "/srv/elsewhere")
    assert services.site(*elsewhere).status == 2
    assert not services.tree("/srv/elsewhere").exists()
    # After the next start nothing is mounted there, and a unit without its pool has a problem.
    services.site("storage", "remove", "later").assert_ok()
    host.run("umount", "/srv/later")


def test_all_of_them_come_up_when_the_machine_does(services: Services) -> None:
    services.host.reboot()
    services.await_work()
    services.put_policy("after", "web1", "branch", "/etc/hostname")
    services.completed(services.run("after"))


def test_what_was_installed_can_be_removed(services: Services) -> None:
    host = services.host
    for role, unit in UNITS.items():
        command = services.of(role)
        said = command("service", "uninstall", "--role", role).assert_ok()
        assert said.text == f"/etc/systemd/system/{unit}\n"
        shown = host.shown(unit, "LoadState", "ActiveState")
        assert shown == {"LoadState": "not-found", "ActiveState": "inactive"}
        left = host.run("find", "/etc/systemd", "/run/systemd/system", "-name", f"{unit}*")
        assert left == ""
        assert services.tree(str(command.home)).is_dir()
    again = services.site("service", "uninstall")
    again.assert_failed(2, f"there is no /etc/systemd/system/{SITE}")
    # Meanwhile a site in another place is served, whatever its name.
    home = '/srv/a "site" of 100% $HOME'
    odd = host.holdfast(home)
    odd("init").assert_ok()
    odd("service", "install").assert_ok()
    host.systemctl("daemon-reload")
    host.systemctl("start", SITE)
    assert services.tree(f"{home}/run/api.sock").is_socket()
    shown = host.shown(SITE, "RequiresMountsFor")
    assert home in shown["RequiresMountsFor"].replace("\\", "")
    # What somebody has added to a unit is not ours.
    host.run("mkdir", f"/etc/systemd/system/{SITE}.d")
    said = odd("service", "uninstall").assert_ok()
    assert f"left, since it is not ours: /etc/systemd/system/{SITE}.d" in said.err
    host.run("rmdir", f"/etc/systemd/system/{SITE}.d")
    services.install("site")
    services.install("agent")
    services.install("media", "--disk", "/srv/disk", "--disk", "/srv/later")
    services.await_work()


def test_a_file_that_is_not_ours_is_not_removed(services: Services) -> None:
    file = services.tree(f"/etc/systemd/system/{AGENT}")
    ours = file.read_text()
    try:
        file.write_text("# by hand\n" + ours)
        refused = services.agent("service", "uninstall", "--role", "agent")
        refused.assert_failed(2, "was not made by 'holdfast service install'")
        assert file.exists()
    finally:
        file.write_text(ours)
    services.host.systemctl("daemon-reload")
