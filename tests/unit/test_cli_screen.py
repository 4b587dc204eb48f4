"""What reaches the screen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.faces.cli.screen import Column, Screen, path_json, path_text, printable, tell_findings


@given(st.binary(max_size=40))
def test_a_path_survives_its_way_through_text_and_json(path: bytes) -> None:
    assert path_text(path).encode("utf-8", "surrogateescape") == path
    read = json.loads(json.dumps(path_json(path)))
    assert read["path"].encode("utf-8", "surrogateescape") == path
    assert ("path_base64" in read) == (path.decode("utf-8", "replace").encode() != path)


@given(st.text(max_size=40))
def test_nothing_unprintable_reaches_a_terminal(text: str) -> None:
    assert printable(text).isprintable()


def test_bytes_that_are_no_text_are_shown_escaped() -> None:
    assert printable(path_text(b"a\xffb\x1b\n")) == "a\\xffb\\x1b\\n"


def test_a_plain_table_is_never_cut(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    long = "x" * 200
    Screen().table([("name", "left"), ("size", "right")], [[long, "1"], ["b", "22"]])
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert lines[0].split() == ["name", "size"]
    assert lines[1].split() == [long, "1"]
    assert lines[2].endswith("22")
    assert len({len(line) for line in lines}) == 1


def test_columns_give_way_to_a_terminal_one_after_the_other(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen()
    columns: list[Column] = [("a", "left"), ("b", "left"), ("c", "left")]
    cases: list[tuple[int, int, int]] = [(10, 30, 5), (10, 30, 30), (30, 30, 30)]
    for widths in cases:
        screen.table(columns, [["x" * width for width in widths]], gives_way=(1, 2, 0))
        line = capsysbinary.readouterr().out.decode().splitlines()[1]
        assert len(line) == 40 or widths[0] == 30, widths
        assert len(line) <= 40
        first, second, third = line.split()
        assert len(second) < widths[1]
        assert (len(third) < widths[2]) == (widths[2] == 30)
        assert (len(first) < widths[0]) == (widths[0] == 30)


def test_facts_are_aligned(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Screen().facts([("a", "1"), ("longer", "2")])
    assert capsysbinary.readouterr().out == b"a       1\nlonger  2\n"


def test_many_findings_are_counted_and_the_first_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = [(b"/%d" % at, "error", "vanished") for at in range(1000)]
    tell_findings(Screen(), findings, 2500, "findings")
    told = capsys.readouterr().err
    assert "error: /19: vanished" in told
    assert "/20:" not in told
    assert "2,500 findings; the first 20 are shown" in told


def test_no_findings_are_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    tell_findings(Screen(), [], 0, "findings")
    assert capsys.readouterr().err == ""
