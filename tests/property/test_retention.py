"""Retention by any rules over any history: nothing goes that something keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.ids import ImageId, SourceName
from holdfast.control.retention import (
    PERIODS,
    Candidate,
    Judgement,
    Rules,
    Terms,
    judge,
    judge_each,
)

START = datetime(2024, 2, 20, tzinfo=UTC)
COUNTS = st.integers(0, 4)
RULES = st.builds(
    Rules,
    last=COUNTS,
    within=st.none() | st.timedeltas(timedelta(), timedelta(days=40)),
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
)
ZONES = st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Lord_Howe")])
GAPS = st.sampled_from([1, 30, 60, 24 * 60, 7 * 24 * 60, 40 * 24 * 60])


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    """Images of some sources, as a right clock saw them; a few are held or locked."""
    images = []
    moment = START
    for number, gap in enumerate(draw(st.lists(GAPS, max_size=40)), start=1):
        moment += timedelta(minutes=gap)
        images.append(
            Candidate(
                id=ImageId(f"{number:032x}"),
                source=SourceName(draw(st.sampled_from(["a:/", "b:/"]))),
                number=number,
                started_at=moment,
                finished_at=moment + timedelta(seconds=30),
                holds=draw(st.sampled_from([(), (), (), ("a reason",)])),
                locked_until=draw(st.none() | st.just(moment + timedelta(days=1)) | st.just(START)),
            )
        )
    return images


def end_of(images: list[Candidate]) -> datetime:
    return max((one.finished_at for one in images), default=START)


def staying(judgement: Judgement) -> set[str]:
    return {one.image.id for one in judgement.verdicts if one.stays}


@given(histories(), RULES, RULES, ZONES)
def test_no_rule_lets_go_what_another_keeps(
    images: list[Candidate], some: Rules, more: Rules, zone: ZoneInfo
) -> None:
    now = end_of(images)
    both = Rules(
        last=max(some.last, more.last),
        within=max((one.within for one in (some, more) if one.within is not None), default=None),
        **{period: max(some.count(period), more.count(period)) for period in PERIODS},
    )
    kept = staying(judge(images, both, now, zone))
    for rules in (some, more):
        if rules.are_there:
            assert staying(judge(images, rules, now, zone)) <= kept


@given(histories(), RULES, ZONES)
def test_what_is_held_or_locked_stays_and_so_does_the_newest(
    images: list[Candidate], rules: Rules, zone: ZoneInfo
) -> None:
    now = end_of(images)
    judgement = judge(images, rules, now, zone)
    assert judgement.doubts == {}
    assert len(judgement.verdicts) == len(images)
    newest = {one.source: one.id for one in images}
    for image in judgement.leaving:
        assert not image.holds
        assert image.locked_until is None or image.locked_until <= now
        assert newest[image.source] != image.id
        assert rules.are_there


@given(histories(), RULES, ZONES)
def test_letting_go_again_lets_nothing_more_go(
    images: list[Candidate], rules: Rules, zone: ZoneInfo
) -> None:
    now = end_of(images)
    first = judge(images, rules, now, zone)
    left = [one.image for one in first.verdicts if one.stays]
    assert judge(left, rules, now, zone).leaving == []


@given(histories(), RULES, ZONES)
def test_letting_go_each_day_keeps_what_letting_go_at_the_end_keeps(
    images: list[Candidate], rules: Rules, zone: ZoneInfo
) -> None:
    """What goes early must not be what a longer rule would have wanted later."""
    now = end_of(images)
    at_once = staying(judge(images, rules, now, zone))
    there: list[Candidate] = []
    for one in images:
        there.append(one)
        gone = judge(there, rules, one.finished_at, zone).leaving
        there = [image for image in there if image not in gone]
    last = judge(there, rules, now, zone)
    assert staying(last) >= at_once - {
        one.id for one in images if one.holds or one.locked_until is not None
    }


@given(histories(), RULES, st.integers(0, 39), st.timedeltas(timedelta(days=1), timedelta(9999)))
def test_a_clock_that_is_wrong_lets_nothing_of_its_source_go_and_changes_no_other(
    images: list[Candidate], rules: Rules, at: int, by: timedelta
) -> None:
    now = end_of(images)
    right = judge(images, rules, now, UTC)
    if at >= len(images):
        return
    wrong = images[at]
    ahead = replace(wrong, started_at=now + by, finished_at=now + by)
    judgement = judge([*images[:at], ahead, *images[at + 1 :]], rules, now, UTC)
    assert list(judgement.doubts) == [wrong.source]
    assert all(image.source != wrong.source for image in judgement.leaving)
    others = [one for one in right.leaving if one.source != wrong.source]
    assert judgement.leaving == others


@given(histories(), RULES)
def test_an_image_that_ended_before_its_forerunner_began_is_doubted(
    images: list[Candidate], rules: Rules
) -> None:
    if len(images) < 2:
        return
    last = images[-1]
    back = replace(last, started_at=START, finished_at=START)
    judgement = judge([*images[:-1], back], rules, end_of(images), UTC)
    has_forerunner = any(one.source == last.source for one in images[:-1])
    assert (last.source in judgement.doubts) == has_forerunner


@given(histories(), st.lists(RULES, min_size=3, max_size=3), ZONES, st.data())
def test_images_of_different_terms_are_counted_apart(
    images: list[Candidate], rules: list[Rules], zone: ZoneInfo, data: st.DataObject
) -> None:
    """Judged together, each is kept for the reasons for which it is kept among its own."""
    now = end_of(images)
    terms = [Terms(f"terms {number}", one) for number, one in enumerate(rules)]
    whose = {one.id: data.draw(st.sampled_from(terms)) for one in images}
    together = judge_each(images, lambda one: whose[one.id], now, zone)
    apart: set[str] = set()
    for one in terms:
        own = [image for image in images if whose[image.id] == one]
        apart |= {
            verdict.image.id
            for verdict in judge(own, one.rules, now, zone).verdicts
            if verdict.stays and verdict.reasons != ("the newest of its source",)
        }
    newest = {one.source: one.id for one in images}
    assert staying(together) == apart | set(newest.values())
