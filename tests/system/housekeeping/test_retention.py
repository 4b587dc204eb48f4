"""Rules, holds and locks, by the commands that a person has."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import ClockDoubtful
from holdfast.base.ids import ImageId
from holdfast.control.retention import Candidate, Rules
from holdfast.site import retention
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.clock import FakeClock
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command


@pytest.fixture
def three(site: Command, tree: Path) -> list[str]:
    """Three images of one source."""
    made = []
    for number in range(3):
        (tree / "changing").write_text(str(number))
        made.append(site("backup", tree, "--json").assert_ok().json()["id"])
    return made


def ids(site: Command) -> list[str]:
    return [row["id"] for row in site("images", "--json").assert_ok().json_lines()]


def test_a_preview_says_why_and_changes_nothing(site: Command, three: list[str]) -> None:
    rows = site("retention", "preview", "--last", "1", "--daily", "2", "--json").assert_ok()
    verdicts = {row["id"]: row for row in rows.json_lines()}
    assert [verdicts[one]["stays"] for one in three] == [False, False, True]
    assert verdicts[three[2]]["reasons"][0] == "last 1 of 1"
    assert verdicts[three[0]]["reasons"] == []
    shown = site("retention", "preview", "--last", "1").assert_ok()
    assert [line.split()[-1] for line in shown.text.splitlines()[2:4]] == ["goes", "goes"]
    assert "stay: 1, go: 2" in shown.err
    assert all("there is no rule" in line for line in
               site("retention", "preview").assert_ok().text.splitlines()[2:])  # fmt: skip
    assert ids(site) == three


def test_what_rules_let_go_goes_and_the_rest_restores(
    site: Command, tree: Path, tmp_path: Path, three: list[str]
) -> None:
    words = ("retention", "apply", "--last", "2")
    site(*words).assert_failed(64, "1 of 3 images would go", "--yes")
    assert ids(site) == three
    done = site(*words, "--yes", "--json").assert_ok()
    assert done.json_lines() == [{"expired": three[0]}]
    assert "images let go: 1" in done.err
    assert ids(site) == three[1:]
    assert "nothing to let go" in site(*words).assert_ok().err
    site("gc").assert_ok()
    site("verify", "--read-data").assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_rules_count_each_source_by_itself(site: Command, tree: Path, three: list[str]) -> None:
    other = site("backup", tree / "many", "--json").assert_ok().json()
    site("retention", "apply", "--last", "1", "--source", other["source"], "--yes").assert_ok()
    assert ids(site) == [*three, other["id"]]
    site("retention", "apply", "--last", "1", "--yes").assert_ok()
    assert ids(site) == [three[2], other["id"]]


def test_what_is_held_stays_until_the_hold_is_lifted(site: Command, three: list[str]) -> None:
    site("hold", three[0][:8], three[1], "--reason", " case\n17 ").assert_ok()
    rows = site("images", "--json").json_lines()
    assert [row["holds"] for row in rows] == [["case 17"], ["case 17"], []]
    assert site("images").text.count(", held") == 2
    site("expire", three[0]).assert_failed(2, "is held: case 17", "holdfast unhold")
    site("retention", "apply", "--last", "1", "--yes").assert_ok()
    assert ids(site) == three
    site("unhold", three[2]).assert_failed(2, "is not held")
    site("unhold", three[0], "--reason", "case 18").assert_failed(2, "is not held for 'case 18'")
    site("unhold", three[0]).assert_ok()
    site("retention", "apply", "--last", "1", "--yes").assert_ok()
    assert ids(site) == three[1:]


def test_what_is_locked_stays_whoever_asks(site: Command, three: list[str]) -> None:
    far = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    site("lock", three[0], "--until", far).assert_ok()
    site("lock", three[0], "--until", "90d").assert_ok()
    site("lock", three[0], "--until", far).assert_failed(2, "already", "later date")
    site("expire", three[1], three[0]).assert_failed(2, "is locked until")
    assert three[0] in ids(site)
    site("retention", "apply", "--last", "1", "--yes").assert_ok()
    assert ids(site) == [three[0], three[2]]
    assert ", locked" in site("images").text
    assert site("images", "--json").json_lines()[0]["locked_until"].endswith("Z")


def test_expiring_several_lets_none_go_if_one_is_protected(site: Command, three: list[str]) -> None:
    site("hold", three[1], "--reason", "audit").assert_ok()
    site("expire", three[0], three[1]).assert_failed(2, three[1])
    assert ids(site) == three


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("retention apply --yes", "no rule"),
        ("retention preview --daily -1", "daily"),
        ("retention preview --within soon", "soon"),
        ("retention preview --within 99999999999999d", "99999999999999d"),
        ("retention preview --daily 1 --zone Mars/Olympus", "Mars/Olympus"),
        ("retention preview --daily 1 --zone ../etc", "../etc"),
        ("lock latest --until yesterday", "yesterday"),
        ("lock latest --until 2001-01-01", "is past"),
        ("lock latest --until 9999-12-31", "9999-12-31"),
        ("hold latest", "--reason"),
        ("hold latest --reason ' '", "reason"),
    ],
)
def test_words_that_make_no_sense_are_told(
    site: Command, tree: Path, words: str, told: str
) -> None:
    site("backup", tree).assert_ok()
    site(*shlex.split(words)).assert_failed(64, told)


def test_unknown_sources_and_images_are_told(site: Command, tree: Path) -> None:
    assert "no images yet" in site("retention", "preview", "--last", "1").assert_ok().err
    site("backup", tree).assert_ok()
    site("retention", "preview", "--last", "1", "--source", "x:/").assert_failed(2, "x:/")
    site("hold", "ffff", "--reason", "x").assert_failed(2, "ffff")


def leaving_by(site: Site, rules: Rules) -> list[Candidate]:
    return [image for one in retention.judgements(site, rules) for image in one.leaving]


def test_nothing_goes_by_a_clock_that_was_set(site: Command, three: list[str]) -> None:
    clock = FakeClock(datetime.now(UTC) + timedelta(minutes=1))
    rules = Rules(within=timedelta(days=1))
    with Site.open(site.home, SecretSource(), clock) as opened:
        retention.trust_clock(opened)
        clock.set_by(timedelta(days=365))
        leaving = leaving_by(opened, rules)
        assert len(leaving) == 2
        with pytest.raises(ClockDoubtful, match="forward by 365 d"):
            retention.apply(opened, leaving, lambda _: None)
        assert ids(site) == three
        # Time that has really passed is another matter.
        clock.set_by(timedelta(days=-365))
        clock.move(timedelta(days=365))
        gone: list[str] = []
        assert retention.apply(opened, leaving_by(opened, rules), gone.append) == {}
        assert gone == three[:2]
    assert ids(site) == three[2:]


def test_nothing_goes_by_a_clock_that_is_behind_the_images(site: Command, three: list[str]) -> None:
    clock = FakeClock(datetime.now(UTC) - timedelta(days=2))
    with Site.open(site.home, SecretSource(), clock) as opened:
        (judgement,) = retention.judgements(opened, Rules(last=1))
        assert judgement.leaving == []
        assert len(judgement.doubts) == 1
    assert ids(site) == three


def test_a_clock_that_was_set_and_is_right_is_trusted_when_told_so(
    site: Command, three: list[str]
) -> None:
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        now = opened.clock.mark()
        opened.catalog.set_clock_mark(replace(now, wall_ns=now.wall_ns - 86400 * 10**9))
    words = ("retention", "apply", "--last", "2", "--yes")
    site(*words).assert_failed(2, "forward by 1 d", "--trust-clock")
    assert "forward by 1 d" in site("retention", "preview", "--last", "2").assert_ok().err
    assert ids(site) == three
    site(*words, "--trust-clock").assert_ok()
    assert ids(site) == three[1:]


def test_nothing_goes_after_a_restart_with_a_clock_that_is_years_ahead(
    site: Command, three: list[str]
) -> None:
    rules = Rules(within=timedelta(days=1))
    clock = FakeClock(datetime.now(UTC) + timedelta(minutes=1))
    with Site.open(site.home, SecretSource(), clock) as opened:
        opened.catalog.lock(ImageId(three[0]), clock.now() + timedelta(days=300))
        assert retention.look_at_clock(opened) is None
        clock.set_by(timedelta(days=730))
        clock.restart("another boot")
        # It goes on for days, and is looked at, and does not come to be believed.
        for _ in range(30):
            clock.move(timedelta(days=1))
            assert retention.look_at_clock(opened) is not None
        leaving = leaving_by(opened, rules)
        assert len(leaving) == 2
        with pytest.raises(ClockDoubtful, match=r"shows 760 d .* was off for so long") as caught:
            retention.apply(opened, leaving, lambda _: None)
        assert "--trust-clock" in (caught.value.hint or "")
        # Nor is a lock past by that clock.
        with pytest.raises(ClockDoubtful, match="was locked"):
            opened.expire(ImageId(three[0]))
        opened.expire(ImageId(three[1]))
        assert ids(site) == [three[0], three[2]]
        # Somebody says that the machine was off for so long.
        retention.trust_clock(opened)
        gone: list[str] = []
        assert retention.apply(opened, leaving_by(opened, rules), gone.append) == {}
        assert gone == [three[0]]


def test_after_a_restart_a_command_says_how_to_go_on(site: Command, three: list[str]) -> None:
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        mark = opened.clock.mark()
        weeks = timedelta(days=20) // timedelta(microseconds=1) * 1000
        opened.catalog.set_clock_mark(
            replace(mark, wall_ns=mark.wall_ns - weeks, boot="another boot")
        )
    words = ("retention", "apply", "--last", "2", "--yes")
    site(*words).assert_failed(2, "shows 20 d", "was off for so long", "--trust-clock")
    assert "nothing would go now" in site("retention", "preview", "--last", "2").assert_ok().err
    assert ids(site) == three
    # A site that knows of machines that are off for long.
    patient = replace(site, environ={"HOLDFAST_CLOCK_LONGEST_ABSENCE": "30d"})
    assert patient("retention", "preview", "--last", "2").assert_ok().err.count("clock") == 0
    site(*words, "--trust-clock").assert_ok()
    assert ids(site) == three[1:]


def test_a_backup_remembers_the_clock_for_a_site_that_nobody_serves(
    site: Command, tree: Path
) -> None:
    site("backup", tree).assert_ok()
    ids(site)
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        before, now = opened.catalog.clock_mark(), opened.clock.mark()
    assert before is not None
    assert before.boot == now.boot
    assert now.wall_ns - before.wall_ns < 60 * 10**9


def test_a_damaged_catalog_is_set_aside_with_a_word_about_holds(
    site: Command, three: list[str]
) -> None:
    site("hold", three[0], "--reason", "audit").assert_ok()
    site("catalog", "rebuild").assert_ok()
    assert site("images", "--json").json_lines()[0]["holds"] == ["audit"]
    (site.home / "catalog" / "catalog.db").write_bytes(b"this is no database " * 1000)
    done = site("catalog", "rebuild").assert_ok()
    assert "holds and locks" in done.err
    assert ids(site) == three
