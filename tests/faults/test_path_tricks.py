"""Trees that a hostile client made, restored over the data path: nothing outside comes to harm.

A media server takes trees as they come, since it can't know what is true of another machine. What
protects a machine that restores is its own engine: it refuses what no tree may say, and goes no way
that the tree has laid.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.engine import Pool, PoolConfig
from tests.kit.clock import FakeClock
from tests.kit.command import Command
from tests.kit.hostile_tree import CHARACTERS, DIRECTORY, FIFO, LINK, HostileTree, back_up
from tests.kit.machine_identities import Machines
from tests.kit.transfer_site import TransferSite, transfer_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Make = Callable[[HostileTree], list[dict[int, Any]]]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TransferSite]:
    home = tmp_path / "site"
    home.mkdir()
    pool = Pool.create(str(home / "pool"), bytes(32), PoolConfig(), FakeClock().now_ns())
    machines = Machines(home)
    machines.client("alpha")
    with transfer_site(home, pool, machines=machines, pool_id=pool.id.hex()) as made:
        yield made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    made.mkdir()
    (made / "secret").write_text("not to be touched")
    (made / "secret").chmod(0o600)
    return made


def restore(site: TransferSite, image: str, to: Path, *words: str) -> dict[str, Any]:
    """Have another machine, which may not do what root may, restore an image; what came of it."""
    token = site.token("alpha", job=2, verbs=frozenset({"restore"}), images=frozenset({image}))
    url = f"https://127.0.0.1:{site.port}"
    given = (str(to.parent / "site"), token, url, "restore", str(to), image, *words)
    prefix = Command(to).without_privileges().prefix
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.kit.agent_process", *given],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def state(directory: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory that a restore could change."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        seen = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_mtime_ns, seen.st_nlink, content)
    return found


NAMES = [b"..", b".", b"", b"a/b", b"../outside", b"/outside", b"a/../../outside", b"a\0b"]


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_climbs_is_refused(
    site: TransferSite, outside: Path, tmp_path: Path, name: bytes, kind: str
) -> None:
    def make(tree: HostileTree) -> list[dict[int, Any]]:
        evil = (
            tree.file(name)
            if kind == "file"
            else tree.directory(name, tree.directory(b"outside", tree.file(b"secret")))
        )
        return [tree.directory(b"bad", evil), tree.directory(b"good", tree.file(b"file"))]

    image = back_up(site, make)
    before, beside = state(outside), sorted(os.listdir(tmp_path))
    done = restore(site, image, tmp_path / "back")
    assert state(outside) == before
    assert sorted(os.listdir(tmp_path)) == sorted([*beside, "back"])
    # The directory that says so is told of; what is beside it comes back.
    assert [one["code"] for one in done["findings"]] == ["integrity"], done
    assert os.listdir(tmp_path / "back" / "bad") == []
    assert (tmp_path / "back" / "good" / "file").read_bytes() == b"evil"


def test_a_root_whose_names_climb_is_refused(
    site: TransferSite, outside: Path, tmp_path: Path
) -> None:
    image = back_up(site, lambda tree: [tree.directory(b"..", tree.file(b"secret"))])
    before = state(outside)
    done = restore(site, image, tmp_path / "back")
    assert state(outside) == before
    assert done.get("code") == "integrity" or done["findings"], done


def test_paths_of_a_source_that_climb_lead_nowhere(
    site: TransferSite, outside: Path, tmp_path: Path
) -> None:
    paths = (b"/../outside", b"../../outside", os.fsencode(outside))
    image = back_up(site, lambda tree: [tree.directory(b"a", tree.file(b"b"))], paths=paths)
    before, beside = state(outside), sorted(os.listdir(tmp_path))
    restore(site, image, tmp_path / "back")
    assert state(outside) == before
    assert sorted(os.listdir(tmp_path)) == sorted([*beside, "back"])


def test_an_absolute_link_is_not_gone_through(
    site: TransferSite, outside: Path, tmp_path: Path
) -> None:
    target = os.fsencode(outside)
    first = back_up(site, lambda tree: [tree.entry(b"way", LINK, 0o777, k18=target)])
    evil = back_up(
        site,
        lambda tree: [tree.directory(b"way", tree.file(b"secret"), tree.file(b"xnew"))],
        job=3,
    )
    before = state(outside)
    assert restore(site, first, tmp_path / "back")["findings"] == []
    assert os.readlink(tmp_path / "back" / "way") == str(outside)
    # The second image has a directory in the place of the link that the first has laid.
    done = restore(site, evil, tmp_path / "back", "always")
    assert state(outside) == before
    way = tmp_path / "back" / "way"
    assert done["findings"] or done.get("code") or not way.is_symlink(), done


def test_a_link_and_a_directory_of_one_name_are_refused(
    site: TransferSite, outside: Path, tmp_path: Path
) -> None:
    def make(tree: HostileTree) -> list[dict[int, Any]]:
        link = tree.entry(b"way", LINK, 0o777, k18=os.fsencode(outside))
        return [tree.directory(b"bad", link, tree.directory(b"way", tree.file(b"secret")))]

    image = back_up(site, make)
    before = state(outside)
    done = restore(site, image, tmp_path / "back")
    assert state(outside) == before
    assert [one["code"] for one in done["findings"]] == ["integrity"]


def test_names_of_one_file_of_which_one_is_a_link_lead_nowhere(
    site: TransferSite, outside: Path, tmp_path: Path
) -> None:
    secret = os.fsencode(outside / "secret")

    def make(tree: HostileTree) -> list[dict[int, Any]]:
        return [
            tree.entry(b"a", LINK, 0o777, k12=2, k18=secret),
            tree.file(b"b", b"evil", k12=2),
        ]

    image = back_up(site, make)
    before = state(outside)
    restore(site, image, tmp_path / "back")
    assert state(outside) == before


def test_attributes_of_a_link_are_not_those_of_what_it_leads_to(
    site: TransferSite, outside: Path, tmp_path: Path
) -> None:
    secret = os.fsencode(outside / "secret")

    def make(tree: HostileTree) -> list[dict[int, Any]]:
        more = {b"user.evil": b"1"}
        return [
            tree.entry(b"a", LINK, 0o777, k18=secret, k20=more),
            tree.entry(b"b", LINK, 0o4777, k18=os.fsencode(outside)),
        ]

    image = back_up(site, make)
    before = state(outside)
    restore(site, image, tmp_path / "back")
    assert state(outside) == before
    assert os.listxattr(outside / "secret") == []


def test_a_device_is_not_made_by_who_is_not_root(site: TransferSite, tmp_path: Path) -> None:
    def make(tree: HostileTree) -> list[dict[int, Any]]:
        return [
            tree.entry(b"memory", CHARACTERS, 0o666, k19=[1, 1]),
            tree.entry(b"pipe", FIFO, 0o644),
            tree.file(b"sane", b"evil"),
        ]

    image = back_up(site, make)
    done = restore(site, image, tmp_path / "back")
    (finding,) = done["findings"]
    assert finding["path"].endswith("memory")
    assert finding["code"] in {"no-permission", "unsupported"}
    assert not os.path.lexists(tmp_path / "back" / "memory")
    assert (tmp_path / "back" / "sane").read_bytes() == b"evil"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (13, -1),
        (13, 2**63),
        (14, b"short"),
        (16, b"\xff" * 11),
        (3, 0o170777),
        (8, [0, 10**9]),
        (18, b"x"),
        (99, 1),
    ],
)
def test_an_entry_that_no_writer_would_have_written_is_refused(
    site: TransferSite, tmp_path: Path, field: int, value: Any
) -> None:
    def make(tree: HostileTree) -> list[dict[int, Any]]:
        return [tree.directory(b"bad", tree.file(b"f") | {field: value})]

    done = restore(site, back_up(site, make), tmp_path / "back")
    assert [one["code"] for one in done["findings"]] == ["integrity"]
    assert os.listdir(tmp_path / "back" / "bad") == []


def test_a_directory_that_holds_itself_by_its_name_can_t_be_made(
    site: TransferSite, tmp_path: Path
) -> None:
    """The name of a chunk is the hash of its bytes: what it would name is not known before."""

    def make(tree: HostileTree) -> list[dict[int, Any]]:
        return [tree.entry(b"loop", DIRECTORY, k17=bytes(32) + b"\1\0\0\0")]

    done = restore(site, back_up(site, make), tmp_path / "back")
    assert [one["code"] for one in done["findings"]] or done.get("code")
