"""Units of systemd, how they are removed, and what services write to the journal."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.faces.cli import journal, screen, service_manager, units
from holdfast.faces.cli.main import run

if TYPE_CHECKING:
    from pytest import CaptureFixture, MonkeyPatch  # noqa: PT013


def test_the_journal_is_known_by_what_systemd_says_it_is(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as stream:
        number = stream.fileno()
        found = os.fstat(number)
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert journal.is_journal(named, number)
        assert not journal.is_journal({"JOURNAL_STREAM": "1:2"}, number)
        assert not journal.is_journal({}, number)
    assert not journal.is_journal(named, 9999)


def test_each_line_in_the_journal_has_the_priority_of_what_it_tells(
    monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screen, "talks_to_journal", lambda: True)
    screen.Screen().say("one\ntwo")
    screen.Screen().warn("three")
    assert run(["no-such-command"]) == 64
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["<6>one", "<6>two", "<4>warning: three"]
    assert lines[3].startswith("<3>error: ")
    assert lines[4].startswith("<3>hint: ")


@pytest.mark.parametrize(
    ("level", "priority"), [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3)]
)
def test_what_is_logged_has_its_levels_priority_in_every_line(level: str, priority: int) -> None:
    formatter = service_manager.JournalFormatter("%(message)s")
    try:
        raise ValueError("of a defect")
    except ValueError:
        record = logging.makeLogRecord(
            {"msg": "it died", "levelno": getattr(logging, level), "exc_info": sys.exc_info()}
        )
    lines = formatter.format(record).splitlines()
    assert lines[0] == f"<{priority}>it died"
    assert len(lines) > 2
    assert all(one.startswith(f"<{priority}>") for one in lines)


def test_a_path_in_a_unit_is_that_path() -> None:
    text = units.text_of("site", Path('/a "b"\\c 100% $d'), user=False)
    assert 'Environment="HOLDFAST_HOME=/a \\"b\\"\\\\c 100%% $d"' in text
    assert 'RequiresMountsFor="/a \\"b\\"\\\\c 100%% $d"' in text


@pytest.fixture
def own_units(monkeypatch: MonkeyPatch, tmp_path: Path) -> Path:
    """Where a user's own units are; systemctl takes everything, and writes it down."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    made = tmp_path / "systemd" / "user"
    made.mkdir(parents=True)
    return made


def test_a_unit_that_is_not_there_can_not_be_removed(
    own_units: Path, capsys: CaptureFixture[str]
) -> None:
    assert run(["service", "uninstall", "--user", "--role", "agent"]) == 2
    said = capsys.readouterr()
    assert f"there is no {own_units}/holdfast-agent.service" in said.err
    assert "hint: " in said.err


def test_a_unit_of_somebody_elses_is_not_removed(
    own_units: Path, capsys: CaptureFixture[str]
) -> None:
    file = own_units / "holdfast.service"
    file.write_text("[Service]\nExecStart=/bin/true\n")
    assert run(["service", "uninstall", "--user"]) == 2
    assert "was not made by 'holdfast service install'" in capsys.readouterr().err
    assert file.exists()


def test_a_unit_is_disabled_before_it_is_removed(
    own_units: Path, capsys: CaptureFixture[str]
) -> None:
    file = own_units / "holdfast-media.service"
    file.write_text(units.text_of("media", Path("/home"), user=True))
    assert run(["service", "uninstall", "--user", "--role", "media"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert not file.exists()
    said = (own_units.parents[1] / "said").read_text().splitlines()
    assert said[0].startswith("--user disable ")
    assert said[0].endswith("holdfast-media.service")


def test_a_unit_that_systemd_keeps_is_kept(own_units: Path, capsys: CaptureFixture[str]) -> None:
    file = own_units / "holdfast.service"
    file.write_text(units.text_of("site", Path("/home"), user=True))
    Path(os.environ["PATH"], "systemctl").write_text("#!/bin/sh\necho Access denied >&2; exit 4\n")
    assert run(["service", "uninstall", "--user"]) == 2
    said = capsys.readouterr().err
    assert "exit status 4: Access denied" in said
    assert file.exists()
