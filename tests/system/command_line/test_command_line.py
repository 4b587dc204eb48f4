"""The command line itself: help, versions, progress, streams."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from pathlib import Path

from holdfast import __version__
from holdfast.faces.cli.commands import COMMANDS
from tests.kit.command import Command


def on_terminal(command: Command, *words: str | Path, columns: int = 80) -> tuple[int, str, str]:
    """Run with stderr and stdout on a pseudo terminal each; tell status, stdout, stderr."""
    environment = command.environment() | {"COLUMNS": str(columns), "TERM": "xterm"}
    out_master, out_slave = pty.openpty()
    err_master, err_slave = pty.openpty()
    running = subprocess.Popen(
        command.line(*words),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out_slave,
        stderr=err_slave,
    )
    os.close(out_slave)
    os.close(err_slave)
    collected: dict[int, bytes] = {out_master: b"", err_master: b""}
    open_ends = set(collected)
    while open_ends:
        for end in select.select(list(open_ends), [], [])[0]:
            try:
                piece = os.read(end, 65536)
            except OSError:
                piece = b""
            collected[end] += piece
            if not piece:
                open_ends.remove(end)
                os.close(end)
    return (
        running.wait(60),
        collected[out_master].decode("utf-8", "replace"),
        collected[err_master].decode("utf-8", "replace"),
    )


def test_the_version_is_told(holdfast: Command) -> None:
    assert holdfast("--version").assert_ok().text == f"holdfast {__version__}\n"


def test_no_words_show_the_help_and_are_wrong_usage(holdfast: Command) -> None:
    done = holdfast()
    assert done.status == 64
    assert "quickstart" in done.text


def test_help_fits_eighty_columns_and_has_examples(holdfast: Command) -> None:
    for words in (["backup"], ["restore"], ["pool", "recovery-kit"], ["catalog", "rebuild"]):
        text = holdfast(*words, "--help").assert_ok().text
        assert "Examples:" in text
        assert "holdfast " + " ".join(words) in text
        assert max(len(line) for line in text.splitlines()) <= 80


def test_the_help_lists_every_command_with_a_sentence(holdfast: Command) -> None:
    lines = holdfast("--help").assert_ok().text.splitlines()
    for name in COMMANDS:
        (line,) = [one for one in lines if one.split()[:1] == [name]]
        assert len(line.split()) > 2, name


def test_words_that_are_nearly_right_are_corrected(holdfast: Command) -> None:
    holdfast("bakup", "/").assert_failed(64, "'bakup'", "Did you mean 'backup'?", "holdfast --help")
    holdfast("backup", "--jsom").assert_failed(64, "--jsom", "--json", "holdfast backup --help")


def test_a_group_without_a_command_is_wrong_usage(holdfast: Command) -> None:
    holdfast("pool").assert_failed(64, "Missing command", "holdfast pool --help")


def test_a_shell_can_complete_commands_and_options(holdfast: Command) -> None:
    for words, at, found in (
        ("holdfast qui", 1, "quickstart"),
        ("holdfast gc --d", 2, "--dry-run"),
    ):
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(at), "_HOLDFAST_COMPLETE": "bash_complete"}
        done = Command(holdfast.home, asked)()
        assert done.assert_ok().text == f"plain,{found}\n"


def test_a_terminal_gets_a_bar_and_a_pipe_does_not(site: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for at in range(20):
        (tmp_path / "data" / str(at)).write_bytes(os.urandom(4 << 20))
    status, out, err = on_terminal(site, "backup", tmp_path / "data")
    assert status == 0, err
    assert "\x1b[" in err
    assert "\x1b[" not in out
    assert "image" in out
    piped = site("backup", tmp_path / "data").assert_ok()
    assert "\x1b" not in piped.text + piped.err


def test_tables_fit_the_terminal(site: Command, tmp_path: Path) -> None:
    (tmp_path / ("a rather long name " * 6)).mkdir()
    site("backup", tmp_path / ("a rather long name " * 6)).assert_ok()
    status, out, _ = on_terminal(site, "images")
    assert status == 0
    lines = out.replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert "completed" in lines[1]


def test_names_cannot_play_tricks_on_a_terminal(site: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "red\x1b[31m alert").touch()
    site("backup", tmp_path / "data").assert_ok()
    status, out, _ = on_terminal(site, "ls", f"latest:{tmp_path}/data")
    assert status == 0
    assert "\x1b[31m" not in out
    assert "\\x1b[31m alert" in out


def test_talk_does_not_mix_with_json(site: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for words in (["backup", str(tmp_path / "file")], ["gc"], ["verify"], ["pool", "check"]):
        site(*words, "--json").assert_ok().json()
