"""``verify-boot``: a backup is booted by the real command, and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from tests.kit.boot_sector import boot_disk
from tests.kit.qemu import needs_qemu
from tests.kit.served import served
from tests.system.virtual_machines.test_policy_to_restore import run_and_wait

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = needs_qemu

POLICY = """
[[policy]]
name = "estate"
type = "machines"
active = false
machines = {query = "*"}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


@pytest.fixture
def image(site: Command, tmp_path: Path) -> str:
    """The id of an image of a machine that says ``web1 login:`` when it is booted."""
    shelf = tmp_path / "machines"
    shelf.mkdir()
    (shelf / "web1.raw").write_bytes(boot_disk("web1 login: "))
    (tmp_path / "policy.toml").write_text(POLICY)
    with served(site) as running:
        site("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", shelf).assert_ok()
        site("policy", "apply", tmp_path / "policy.toml", "--yes").assert_ok()
        (done,) = run_and_wait(site, "policy", "run", "estate")
        assert done["outcome"].startswith("completed"), done
        running.stop()
    return str(done["image_id"])


def test_an_image_is_booted_and_its_screen_kept(site: Command, image: str, tmp_path: Path) -> None:
    picture = tmp_path / "web1.png"
    words = ("verify-boot", image, "--serial", "login:", "--within", "2m", "--screenshot", picture)
    done = site(*words).assert_ok()
    assert "verdict: it boots" in done.text
    assert all(len(line) <= 80 for line in done.text.splitlines())
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = site("verify-boot", image[:8], "--serial", "web1", "--json").assert_ok().json()
    assert (told["image"], told["passed"], told["missed"]) == (image, True, [])
    assert "web1 login:" in told["said"]
    assert told["has_screenshot"]


def test_one_that_does_not_come_up_is_told_and_fails(site: Command, image: str) -> None:
    words = ("verify-boot", image, "--serial", "graphical", "--port", "22", "--within", "6")
    done = site(*words)
    assert done.status == 2
    assert "did not come: 'graphical' on the serial console" in done.text
    assert "did not come: an answer at TCP port 22" in done.text
    assert "web1 login:" in done.err


def test_what_can_not_be_is_refused(site: Command, image: str, tree: Path) -> None:
    site("verify-boot", image).assert_failed(64, "nobody said")
    site("verify-boot", image, "--command", "echo 'a").assert_failed(64, "is no command")
    site("verify-boot", image, "--serial", "(").assert_failed(64, "regular expression")
    site("verify-boot", "abcdef00", "--agent").assert_failed(2, "abcdef00")
    site("backup", tree).assert_ok()
    site("verify-boot", "latest", "--agent").assert_failed(2, "machine")
