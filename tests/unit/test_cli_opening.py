"""The key of the pool is derived while a command is being loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from holdfast import engine
from holdfast.base.clock import SystemClock
from holdfast.base.errors import Invalid, WrongKey
from holdfast.faces.cli import opening
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of this process's site, which a passphrase in a file opens."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse")
    Site.create(tmp_path / "home", None, SecretSource(passphrase), SystemClock()).close()
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def forget_slots(home: Path) -> None:
    """Who opens the pool after this has derived its key before."""
    shutil.rmtree(home / "pool" / "keys")


def test_the_key_is_derived_before_the_site_is_asked_for(home: Path) -> None:
    opening.begin(["backup", "/etc"])
    forget_slots(home)
    with opening.open_site() as site:
        assert site.pool.id.hex() == site.config.pool_id
    with opening.open_site() as site, pytest.raises(WrongKey):
        _ = site.pool


_LOADED = """
import sys
from holdfast.faces.cli import opening
opening.begin(["backup", "/etc"])
before = set(sys.modules)
from holdfast.faces.cli import {command}
with opening.open_site() as site:
    site.pool
print(*sorted(before), "/", *sorted(sys.modules))
"""


@pytest.mark.parametrize("command", ["backup", "ls", "restore"])
def test_little_is_loaded_before_the_key_is_begun_and_nothing_that_only_others_need(
    home: Path, command: str
) -> None:
    environ = os.environ | {"HOLDFAST_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", _LOADED.format(command=command)],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = (set(words.split()) for words in done.stdout.split("/"))
    assert "holdfast.vault.keys" in before
    assert not before & {"click", "holdfast.site.site", "holdfast.movers.backup_run"}
    others = {"secrets", "sqlalchemy", "aiohttp", "rich", "logging", "asyncio"}
    assert not after & others
    assert "holdfast.movers.machines.record" not in after
    assert "holdfast.sources" not in after


def test_who_ends_with_the_work_keeps_memory_that_is_freed_and_who_stays_does_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(opening, "_begun", [])
    for words in (["restore", "latest"], ["gc"], ["mount", "latest", "/mnt"], ["serve"], ["ls"]):
        monkeypatch.setattr(engine, "keep_freed_memory", partial(asked.append, words[0]))
        opening.begin(words)
    assert asked == ["restore", "gc"]


_FREED = """
import resource, threading
from holdfast import engine
{keep}
def work():
    for _ in range(40):
        pieces = [bytes(3 << 20) for _ in range(8)]
threads = [threading.Thread(target=work) for _ in range(6)]
for one in threads: one.start()
for one in threads: one.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_memory_that_is_kept_is_not_given_out_anew() -> None:
    def faults(keep: str) -> int:
        program = _FREED.format(keep=keep)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("engine.keep_freed_memory()") * 2 < faults("")


@pytest.mark.parametrize("words", [[], ["--version"], ["images"], ["ls", "--help"], ["gc", "-h"]])
def test_what_needs_no_pool_derives_nothing(home: Path, words: list[str]) -> None:
    opening.begin(words)
    forget_slots(home)
    with opening.open_site() as site, pytest.raises(WrongKey):
        _ = site.pool


def test_a_wrong_passphrase_is_told_when_the_pool_is_used(home: Path) -> None:
    (home.parent / "passphrase").write_text("wrong horse")
    opening.begin(["ls", "latest"])
    with opening.open_site() as site:
        for _ in range(2):
            with pytest.raises(WrongKey, match="the passphrase does not open the pool"):
                _ = site.pool


def test_nothing_is_said_of_a_site_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))
    opening.begin(["ls", "latest"])


def test_no_command_takes_the_site_of_this_machine_for_the_one_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", "https://master.example.org:8443")
    opening.begin(["expire", "latest"])
    with pytest.raises(Invalid, match=r"master\.example\.org.*this machine at") as error:
        opening.open_site()
    assert "unset HOLDFAST_URL" in (error.value.hint or "")
    monkeypatch.setenv("HOLDFAST_URL", "")
    opening.open_site().close()
    assert (home / "config.toml").exists()
