"""The record of instructions: what counts as broken, and what as a gain."""

from __future__ import annotations

import pytest

from benchmarks import instructions
from benchmarks.instructions import Loop

HERE = {"machine": "x86_64", "rustc": "rustc 1.2.3"}


@pytest.mark.parametrize(
    ("counted", "broken", "gain"),
    [(1000, False, False), (1029, False, False), (1031, True, False), (960, False, True)],
)
def test_more_instructions_break_and_fewer_are_a_gain(
    counted: int, broken: bool, gain: bool
) -> None:
    (verdict,) = instructions.compare({"loop": 1000}, {"loop": counted}, 0.03)
    assert (verdict.is_broken, verdict.is_gain) == (broken, gain)


def test_a_loop_that_is_new_or_gone_has_to_be_recorded() -> None:
    verdicts = instructions.compare({"gone": 1}, {"new": 1}, 0.03)
    assert [(one.name, one.is_broken) for one in verdicts] == [("new", True), ("gone", True)]


@pytest.mark.parametrize(("rustc", "status"), [("rustc 1.2.3", 1), ("rustc 1.2.4", 0)])
def test_another_compiler_is_given_more_room_and_that_is_said(
    rustc: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"counted_with": HERE | {"rustc": rustc}, "instructions": {"loop": 1000}}
    loops = [Loop("loop", 10, "byte")]
    assert instructions.report(loops, {"loop": 1100}, record, HERE) == status
    assert ("only coarse differences count" in capsys.readouterr().out) == (status == 0)
