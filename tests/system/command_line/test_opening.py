"""Deriving the key while the command is being loaded changes nothing but the time it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.faces.cli.opening import OPENING
from tests.kit.command import Command

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {"backup": ["/etc"], "restore": ["latest", "--to", "/none"], "ls": ["latest"], "verify": []}
NOT_AHEAD = ["catalog", "rebuild"]


@pytest.fixture
def locked(holdfast: Command, tmp_path: Path) -> Command:
    """A site whose pool a passphrase in a file opens."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    holdfast("init", "--passphrase-file", tmp_path / "passphrase").assert_ok()
    return holdfast


def assert_told_alike(command: Command, code: int) -> None:
    told = command(*NOT_AHEAD)
    assert told.status == code
    for name, words in WORDS.items():
        ended = command(name, *words)
        assert (ended.status, ended.out, ended.err) == (told.status, told.out, told.err)


def test_a_wrong_passphrase_is_told_as_ever(locked: Command, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("wrong horse\n")
    assert_told_alike(locked, 2)
    locked("ls", "latest").assert_failed(2, "the passphrase does not open the pool")


def test_a_passphrase_file_that_is_gone_is_told_as_ever(locked: Command, tmp_path: Path) -> None:
    (tmp_path / "passphrase").unlink()
    assert_told_alike(locked, 2)


def test_a_pool_that_is_gone_is_told_as_ever(locked: Command) -> None:
    (locked.home / "pool" / "pool").unlink()
    assert_told_alike(locked, 2)


def test_no_site_is_told_as_ever(holdfast: Command) -> None:
    assert_told_alike(holdfast, 2)
    holdfast("backup", "/etc").assert_failed(2, "there is no Holdfast site")


def test_wrong_words_go_before_a_wrong_passphrase(locked: Command, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("wrong horse\n")
    locked("ls").assert_failed(64, "Missing argument")


def test_help_needs_neither_a_site_nor_its_passphrase(locked: Command, tmp_path: Path) -> None:
    (tmp_path / "passphrase").unlink()
    for command in (locked, Command(tmp_path / "no-site")):
        for name in sorted(OPENING):
            assert "Usage" in command(name, "--help").assert_ok().text
