"""By whose rules of retention an image is judged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.base.ids import ImageId, PolicyName, SourceName
from holdfast.control.policies import terms_by, terms_of
from holdfast.control.retention import Candidate, Rules, judge_each
from tests.kit.policies import NIGHTLY, policy

OWN = Rules(monthly=12)
POLICIES = {
    PolicyName("servers"): policy(schedules=(NIGHTLY, replace(NIGHTLY, name="own", retention=OWN)))
}


@pytest.mark.parametrize(
    ("name", "schedule", "whose", "rules"),
    [
        ("servers", "nightly", "policy 'servers'", Rules(daily=7, weekly=4)),
        ("servers", None, "policy 'servers'", Rules(daily=7, weekly=4)),
        ("servers", "renamed", "policy 'servers'", Rules(daily=7, weekly=4)),
        ("servers", "own", "schedule 'own' of policy 'servers'", OWN),
        ("gone", "nightly", "policy 'gone', which is not known", Rules()),
        ("adhoc", None, "ordered by hand", Rules()),
        (None, None, "ordered by hand", Rules()),
    ],
)
def test_an_image_has_the_rules_that_it_was_made_under(
    name: str | None, schedule: str | None, whose: str, rules: Rules
) -> None:
    terms = terms_of(POLICIES, name, schedule)
    assert (terms.name, terms.rules) == (whose, rules)


def test_each_image_is_judged_by_its_own_rules_and_says_whose_they_are() -> None:
    night = datetime(2026, 5, 1, 22, tzinfo=UTC)
    images = [
        Candidate(
            ImageId(f"{number:032x}"),
            SourceName("web1:/srv"),
            number,
            night + timedelta(days=number),
            night + timedelta(days=number),
            policy=name,
            schedule=schedule,
        )
        for number, (name, schedule) in enumerate(
            [
                ("servers", "own"),
                *[("servers", "nightly")] * 8,
                (None, None),
                ("servers", "own"),
                ("gone", "x"),
            ],
            start=1,
        )
    ]
    judgement = judge_each(images, terms_by(POLICIES), images[-1].finished_at, UTC)
    reasons = [one.reasons for one in judgement.verdicts]
    assert reasons[0] == ()
    assert reasons[1] == ("weekly 2 of 4: week 18 of 2026 (policy 'servers')",)
    assert reasons[2] == ("daily 7 of 7: 2026-05-04 (policy 'servers')",)
    assert reasons[9] == ("there is no rule (ordered by hand)",)
    assert reasons[10] == ("monthly 1 of 12: 2026-05 (schedule 'own' of policy 'servers')",)
    assert reasons[11] == ("there is no rule (policy 'gone', which is not known)",)
