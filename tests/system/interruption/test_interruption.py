"""Ctrl-C and a service manager's stop: status 130, a sound pool, no work lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.kit.trees import assert_same_tree


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """More than can be backed up before a signal arrives."""
    root = tmp_path / "large"
    root.mkdir()
    for at in range(40):
        (root / f"{at}").write_bytes(os.urandom(8 << 20))
    return root


def has_begun_to_store(pool: Path) -> bool:
    """Tell whether a pack is there, or on its way with a megabyte."""
    for folder, size_bytes in ((pool / "packs", 0), (pool / "tmp", 1 << 20)):
        for one in folder.rglob("*") if folder.exists() else ():
            # What is on its way may be in its place by now.
            with contextlib.suppress(FileNotFoundError):
                if one.is_file() and one.stat().st_size >= size_bytes:
                    return True
    return False


def stop_when_packs_appear(
    site: Command, running: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    """Send a signal as soon as a backup has stored something."""
    while running.poll() is None:
        if has_begun_to_store(site.home / "pool"):
            running.send_signal(number)
            return


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backup_leaves_a_sound_pool_and_goes_on(
    site: Command, large: Path, tmp_path: Path, number: signal.Signals
) -> None:
    running = site.start("backup", large, "--compression", "1")
    stop_when_packs_appear(site, running, number)
    out, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert out == b""
    assert b"Traceback" not in errors
    assert b"interrupted" in errors
    assert site("images", "--json").json_lines() == []
    site("pool", "check", "--read-data").assert_ok()
    again = site("backup", large, "--json").assert_ok().json()
    assert again["stats"]["bytes_new"] < again["stats"]["bytes_found"]
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(large, os.fsencode(tmp_path / "back") + os.fsencode(large))


def test_a_killed_backup_leaves_a_sound_pool(site: Command, large: Path, tmp_path: Path) -> None:
    (tmp_path / "before").write_text("an older image")
    site("backup", tmp_path / "before").assert_ok()
    running = site.start("backup", large)
    stop_when_packs_appear(site, running, signal.SIGKILL)
    running.communicate(timeout=120)
    site("pool", "check", "--read-data").assert_ok()
    site("verify", "--read-data").assert_ok()
    site("backup", large).assert_ok()
    site("gc").assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(large, os.fsencode(tmp_path / "back") + os.fsencode(large))
