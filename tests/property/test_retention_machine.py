"""Holds, locks, rules and a clock that is set, in any order, on a real catalog and a real pool.

What has to stay is said here by brute force, in a few lines that share nothing with the product.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.base.clock import from_ns
from holdfast.base.errors import ClockDoubtful, ImageProtected
from holdfast.base.ids import ClientName, ImageId
from holdfast.control.retention import Rules
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.site import retention
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = ("web1", "web2")
PLACES = st.integers(0, 50)
REASONS = st.sampled_from(["an audit", "case 17"])
RULES = st.builds(
    Rules,
    last=st.integers(0, 3),
    within=st.none() | st.sampled_from([timedelta(hours=5), timedelta(days=3)]),
)


@dataclass
class Known:
    """An image, as it ought to be."""

    id: ImageId
    client: str
    number: int
    started_at: datetime
    finished_at: datetime
    holds: set[str] = field(default_factory=set)
    locked_until: datetime | None = None

    def is_protected(self, now: datetime) -> bool:
        return bool(self.holds) or (self.locked_until is not None and self.locked_until > now)


class Keeping(RuleBasedStateMachine):
    """A site whose images are made, held, locked and let go."""

    site: Site
    clock: FakeClock
    tree: bytes

    @initialize()
    def begin(self) -> None:
        """What other runs have left goes first; of two sources there is an image each."""
        self.trusted()
        for image in self.site.catalog.image_ids():
            self.site.catalog.unhold(image)
        # Locks are of days: nothing else ends them.
        self.pass_time(timedelta(days=400))
        for image in self.site.catalog.image_ids():
            self.site.expire(image)
        self.images: list[Known] = []
        for client in SOURCES:
            self.back_up(client)

    def pass_time(self, by: timedelta) -> None:
        self.clock.move(by)

    def some(self, place: int) -> Known:
        return self.images[place % len(self.images)]

    @property
    def is_doubtful(self) -> bool:
        """Whether the clock was set by more than a time server would since it was trusted.

        Where the machine was started since, whether it may have been.
        """
        if not self.was_restarted:
            return abs(self.was_set) > timedelta(minutes=10)
        passed = self.clock.now() - self.trusted_at
        return not timedelta(minutes=-10) <= passed <= timedelta(days=7)

    def trusted(self) -> None:
        retention.trust_clock(self.site)
        self.looked_at()

    def looked_at(self) -> None:
        self.was_set, self.was_restarted, self.trusted_at = timedelta(), False, self.clock.now()

    # -- what happens ---------------------------------------------------------------------

    @rule(client=st.sampled_from(SOURCES))
    def back_up(self, client: str) -> None:
        order = BackupOrder(ClientName(client), (self.tree,))
        made = run_backup(self.site.pool, order, self.clock)
        self.site.catalog.record_image(made, self.site.pool.id.hex())
        began, ended = from_ns(made.started_ns), from_ns(made.finished_ns)
        assert all(one.number < made.number for one in self.images)
        self.images.append(Known(ImageId(made.id), client, made.number, began, ended))
        self.pass_time(timedelta(hours=1))

    @rule(hours=st.sampled_from([1, 30, 100]))
    def wait(self, hours: int) -> None:
        self.pass_time(timedelta(hours=hours))

    @rule(place=PLACES, reason=REASONS)
    def hold(self, place: int, reason: str) -> None:
        one = self.some(place)
        self.site.catalog.hold(one.id, reason)
        one.holds.add(reason)

    @rule(place=PLACES, reason=REASONS)
    def lift(self, place: int, reason: str) -> None:
        one = self.some(place)
        assert self.site.catalog.unhold(one.id, reason) == (reason in one.holds)
        one.holds.discard(reason)

    @rule(place=PLACES, days=st.integers(1, 9))
    def lock(self, place: int, days: int) -> None:
        one, until = self.some(place), self.clock.now() + timedelta(days=days)
        if one.locked_until is not None and until < one.locked_until:
            with pytest.raises(ImageProtected):
                self.site.catalog.lock(one.id, until)
        else:
            self.site.catalog.lock(one.id, until)
            one.locked_until = until

    @rule(days=st.sampled_from([-20, -1, 1, 20]))
    def set_the_clock(self, days: int) -> None:
        self.clock.set_by(timedelta(days=days))
        self.was_set += timedelta(days=days)

    @rule(days_off=st.sampled_from([0, 1, 20]), boot=st.sampled_from(["b", "c"]))
    def restart(self, days_off: int, boot: str) -> None:
        self.clock.move(timedelta(days=days_off))
        self.was_restarted = self.was_restarted or boot != self.clock.boot
        self.clock.restart(boot)

    @rule()
    def look_at_the_clock(self) -> None:
        doubtful = self.is_doubtful
        assert (retention.look_at_clock(self.site) is not None) == doubtful
        if not doubtful:
            self.looked_at()

    @precondition(lambda self: self.is_doubtful)
    @rule()
    def trust(self) -> None:
        self.trusted()

    @rule(place=PLACES)
    def let_one_go(self, place: int) -> None:
        one = self.some(place)
        if one.is_protected(self.clock.now()):
            with pytest.raises(ImageProtected):
                self.site.expire(one.id)
        elif one.locked_until is not None and self.is_doubtful:
            with pytest.raises(ClockDoubtful):
                self.site.expire(one.id)
        elif len(self.images) > 1:
            self.site.expire(one.id)
            self.images.remove(one)
        self.same()

    @rule(rules=RULES, held_meanwhile=st.none() | PLACES)
    def apply(self, rules: Rules, held_meanwhile: int | None) -> None:
        stay = {one.id for one in self.images if self.has_to_stay(one, rules)}
        leaving = [
            image
            for judgement in retention.judgements(self.site, rules)
            for image in judgement.leaving
        ]
        assert {one.id for one in leaving} == {one.id for one in self.images} - stay
        if held_meanwhile is not None:
            # Somebody thinks of one after what goes was decided.
            self.hold(held_meanwhile, "an audit")
            stay.add(self.some(held_meanwhile).id)
        gone: list[ImageId] = []
        if self.is_doubtful:
            with pytest.raises(ClockDoubtful):
                retention.apply(self.site, leaving, gone.append)
            assert gone == []
        else:
            retention.apply(self.site, leaving, gone.append)
            assert set(gone) == {one.id for one in self.images} - stay
            self.images = [one for one in self.images if one.id in stay]
            if leaving:
                self.looked_at()
        self.same()

    # -- what has to be -------------------------------------------------------------------

    def has_to_stay(self, image: Known, rules: Rules) -> bool:
        now = self.clock.now()
        siblings = [one for one in self.images if one.client == image.client]
        if image.is_protected(now) or not rules.are_there:
            return True
        if any(one.started_at > now + timedelta(minutes=5) for one in siblings):
            return True
        if any(
            before.number < after.number and after.finished_at < before.started_at
            for before in siblings
            for after in siblings
        ):
            return True
        newer = sum(one.number > image.number for one in siblings)
        young = rules.within is not None and now - image.started_at <= rules.within
        return newer < max(rules.last, 1) or young

    def same(self) -> None:
        """The catalog and the pool have what is known, and nothing else."""
        known = {one.id for one in self.images}
        assert set(self.site.catalog.image_ids()) == known
        assert {one.id for one in self.site.pool.images()} == known
        kept = self.site.catalog.protections()
        for one in self.images:
            found = kept.get(one.id)
            assert set(found.holds if found else ()) == one.holds
            assert (found.locked_until if found else None) == one.locked_until


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_goes_that_a_rule_a_hold_a_lock_or_a_doubt_keeps(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    clock = FakeClock()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"a")
    environ = {}
    if kind == "postgresql":
        environ["HOLDFAST_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    Site.create(tmp_path / "home", None, SecretSource(), clock).close()
    with Site.open(tmp_path / "home", SecretSource(), clock, environ) as site:
        found: dict[str, Any] = {"site": site, "clock": clock, "tree": os.fsencode(tree)}
        run_state_machine_as_test(
            type("KeepingHere", (Keeping,), found),
            settings=settings(max_examples=6, stateful_step_count=20, deadline=None),
        )
