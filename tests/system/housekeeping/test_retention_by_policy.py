"""Images that policies made are judged by the rules of those, by the commands a person has."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.policies import PolicyBook
from holdfast.control.retention import Rules
from holdfast.movers.backup_run import BackupOrder
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.policies import NIGHTLY, policy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

KEEPING = replace(NIGHTLY, name="keeping", retention=Rules(last=2))
SERVERS = policy(retention=Rules(last=1), schedules=(NIGHTLY, KEEPING))


def test_each_image_is_judged_by_its_policy_even_when_that_is_gone(
    site: Command, tree: Path
) -> None:
    made = []
    with Site.open(site.home, SecretSource(), SystemClock(), {}) as opened:
        book = PolicyBook(opened.database, opened.clock)
        book.apply(book.plan([SERVERS]), "a test")
        for schedule in ("nightly", "keeping", "nightly", "keeping", None):
            said = {} if schedule is None else {
                labels.POLICY: SERVERS.name, labels.SCHEDULE: schedule
            }  # fmt: skip
            order = BackupOrder(ClientName("web1"), (os.fsencode(tree),), labels=said)
            made.append(opened.commit(order).id)
        book.remove(PolicyName("servers"), "a test")
    rows = site("retention", "preview", "--json").assert_ok().json_lines()
    stays = {row["id"]: row["stays"] for row in rows}
    assert [stays[one] for one in made] == [False, True, True, True, True]
    why = {row["id"]: row["reasons"] for row in rows}
    assert why[made[1]] == ["last 2 of 2 (schedule 'keeping' of policy 'servers')"]
    assert why[made[4]] == ["there is no rule (ordered by hand)"]
    site("retention", "apply", "--daily", "0", "--yes").assert_failed(64, "no rule")
    done = site("retention", "apply", "--yes", "--json").assert_ok()
    assert done.json_lines() == [{"expired": made[0]}]
