"""Who may begin, in which order, and what the others are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from holdfast.base.errors import InternalError, Invalid
from holdfast.base.ids import JobId
from holdfast.control.broker import AGEING, Broker, Kind, Need, Request, Resource
from holdfast.control.broker.needs import vector

NOW = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
LONG = AGEING * 101

UNIT = Resource(Kind.STORAGE_UNIT_SLOTS, "default")
OTHER_UNIT = Resource(Kind.STORAGE_UNIT_SLOTS, "second")
CLIENT = Resource(Kind.CLIENT_STREAMS, "web1")
POLICY = Resource(Kind.POLICY_JOBS, "nightly")


def request(number: int, *needs: Need, priority: int = 50, queued_at: datetime = NOW) -> Request:
    return Request(JobId(number), needs or (Need(UNIT),), priority, queued_at)


def broker_with(limits: dict[Resource, int]) -> Broker:
    broker = Broker()
    for resource, limit in limits.items():
        broker.set_limit(resource, limit)
    return broker


def words(broker: Broker, number: int) -> str:
    wait = broker.waits(JobId(number))
    assert wait is not None
    return wait.words


def test_as_many_begin_as_there_are_slots_and_the_others_are_told_who_has_them() -> None:
    broker = broker_with({UNIT: 2})
    for number in (12, 15, 17):
        broker.submit(request(number))
    assert broker.round(NOW) == [12, 15]
    assert words(broker, 17) == "storage unit 'default' has 2 of 2 slots in use: jobs 12, 15"
    assert broker.release(JobId(12))
    assert broker.round(NOW) == [17]
    assert broker.queued == []
    assert broker.granted == [15, 17]


def test_a_job_gets_all_that_it_needs_or_nothing() -> None:
    broker = broker_with({UNIT: 2, CLIENT: 1})
    broker.submit(request(1, Need(UNIT), Need(CLIENT)))
    broker.submit(request(2, Need(UNIT), Need(CLIENT)))
    assert broker.round(NOW) == [1]
    assert broker.used(UNIT) == 1
    assert words(broker, 2) == "client 'web1' has 1 of 1 streams in use: job 1"


def test_what_nobody_set_a_limit_for_has_none() -> None:
    broker = Broker()
    for number in range(1, 40):
        broker.submit(request(number))
    assert len(broker.round(NOW)) == 39
    assert broker.limit(UNIT) is None


def test_a_job_without_needs_begins_at_once() -> None:
    broker = Broker()
    broker.submit(Request(JobId(1), (), 0, NOW))
    assert broker.round(NOW) == [1]
    assert broker.release(JobId(1))


def test_higher_priority_goes_first_and_equals_in_the_order_of_the_queue() -> None:
    broker = broker_with({UNIT: 4})
    broker.submit(request(1, priority=10))
    broker.submit(request(2, priority=90))
    broker.submit(request(4))
    broker.submit(request(3))
    assert broker.round(NOW) == [2, 3, 4, 1]


def test_waiting_is_worth_priority() -> None:
    broker = broker_with({UNIT: 0})
    broker.submit(request(1, priority=40))
    broker.submit(request(2, priority=50, queued_at=NOW + AGEING * 9))
    broker.submit(request(3, priority=50, queued_at=NOW + AGEING * 11))
    assert broker.queued == [2, 1, 3]


def test_a_small_job_goes_past_a_large_one_that_has_not_aged() -> None:
    broker = broker_with({UNIT: 4})
    broker.submit(request(1, Need(UNIT, 2)))
    broker.submit(request(2, Need(UNIT, 4)))
    broker.submit(request(3))
    assert broker.round(NOW) == [1, 3]
    assert words(broker, 2) == (
        "storage unit 'default' has 3 of 4 slots in use and 4 are needed: jobs 1, 3"
    )


def test_nobody_goes_past_a_large_job_that_has_aged_where_it_needs_room() -> None:
    broker = broker_with({UNIT: 4, OTHER_UNIT: 1})
    broker.submit(request(1, Need(UNIT, 2)))
    assert broker.round(NOW) == [1]
    broker.submit(request(2, Need(UNIT, 4)))
    broker.submit(request(3, queued_at=NOW + LONG))
    broker.submit(request(4, Need(OTHER_UNIT), queued_at=NOW + LONG))
    assert broker.round(NOW + LONG) == [4]
    assert words(broker, 3) == (
        "storage unit 'default' keeps slots free for job 2, which has waited longer"
    )
    broker.release(JobId(1))
    assert broker.round(NOW + LONG) == [2]


def test_what_an_aged_job_leaves_over_is_used_meanwhile() -> None:
    broker = broker_with({UNIT: 10})
    broker.submit(request(1, Need(UNIT, 4)))
    broker.round(NOW)
    broker.submit(request(2, Need(UNIT, 8)))
    for number in range(3, 10):
        broker.submit(request(number, queued_at=NOW + LONG))
    assert broker.round(NOW + LONG) == [3, 4]
    broker.release(JobId(1))
    assert broker.round(NOW + LONG) == [2]
    broker.release(JobId(2))
    assert broker.round(NOW + LONG) == [5, 6, 7, 8, 9]


def test_a_slot_does_not_stand_idle_for_an_aged_job_whose_client_is_busy() -> None:
    broker = broker_with({UNIT: 1, CLIENT: 1})
    broker.submit(request(1, Need(CLIENT), Need(OTHER_UNIT)))
    broker.round(NOW)
    broker.submit(request(2, Need(CLIENT), Need(UNIT)))
    broker.submit(request(3, queued_at=NOW + LONG))
    assert broker.round(NOW + LONG) == [3]
    # now the client is kept for it, and then the slot is its
    broker.release(JobId(1))
    broker.submit(request(4, Need(CLIENT), Need(OTHER_UNIT), queued_at=NOW + LONG))
    broker.submit(request(5, queued_at=NOW + LONG))
    assert broker.round(NOW + LONG) == []
    assert words(broker, 4) == "client 'web1' keeps streams free for job 2, which has waited longer"
    broker.release(JobId(3))
    assert broker.round(NOW + LONG) == [2]


def test_many_aged_jobs_of_one_client_do_not_keep_a_unit_from_others() -> None:
    broker = broker_with({UNIT: 3, CLIENT: 1})
    for number in range(1, 6):
        broker.submit(request(number, Need(CLIENT), Need(UNIT)))
    assert broker.round(NOW) == [1]
    for number in range(6, 9):
        broker.submit(request(number, queued_at=NOW + LONG))
    assert broker.round(NOW + LONG) == [6, 7]


def test_a_job_that_needs_more_than_there_is_keeps_nothing_from_others_and_is_told() -> None:
    broker = broker_with({UNIT: 2})
    broker.submit(request(1, Need(UNIT, 3)))
    broker.submit(request(2, Need(UNIT, 2), queued_at=NOW + LONG))
    assert broker.round(NOW + LONG) == [2]
    assert words(broker, 1) == "storage unit 'default' has 2 slots in all, and 3 are needed"
    broker.set_limit(UNIT, 0)
    assert words(broker, 1) == "storage unit 'default' takes no jobs: its limit is 0 slots"


def test_a_limit_that_is_lowered_takes_nothing_away_and_lets_nobody_in() -> None:
    broker = broker_with({UNIT: 3})
    for number in range(1, 5):
        broker.submit(request(number))
    broker.round(NOW)
    broker.set_limit(UNIT, 1)
    assert words(broker, 4) == "storage unit 'default' has 3 of 1 slots in use: jobs 1, 2, 3"
    for number in (1, 2):
        broker.release(JobId(number))
        assert broker.round(NOW) == []
    broker.release(JobId(3))
    assert broker.round(NOW) == [4]
    broker.set_limit(UNIT, None)
    broker.submit(request(5))
    assert broker.round(NOW) == [5]


def test_a_withdrawn_job_is_forgotten_and_frees_nothing() -> None:
    broker = broker_with({UNIT: 1})
    broker.submit(request(1))
    broker.round(NOW)
    broker.submit(request(2))
    assert broker.withdraw(JobId(2))
    assert not broker.withdraw(JobId(2))
    assert not broker.withdraw(JobId(1))
    assert broker.waits(JobId(2)) is None
    assert broker.used(UNIT) == 1
    broker.release(JobId(1))
    assert broker.round(NOW) == []
    assert not broker.release(JobId(1))


def test_what_was_running_before_is_counted_in_even_over_a_limit() -> None:
    broker = broker_with({UNIT: 1})
    broker.adopt(JobId(1), [Need(UNIT)])
    broker.adopt(JobId(2), [Need(UNIT)])
    broker.submit(request(3))
    assert broker.round(NOW) == []
    assert broker.used(UNIT) == 2
    broker.release(JobId(1))
    broker.release(JobId(2))
    assert broker.round(NOW) == [3]


def test_a_job_that_has_what_it_needs_is_never_granted_twice() -> None:
    broker = broker_with({UNIT: 2})
    broker.submit(request(1))
    broker.round(NOW)
    with pytest.raises(InternalError, match="job 1 "):
        broker.submit(request(1))
    with pytest.raises(InternalError, match="job 1 "):
        broker.adopt(JobId(1), [Need(UNIT)])
    assert broker.used(UNIT) == 1


def test_a_queued_job_that_is_submitted_anew_has_its_new_place_and_needs() -> None:
    broker = broker_with({UNIT: 0})
    broker.submit(request(1))
    broker.submit(request(2))
    broker.submit(request(2, Need(OTHER_UNIT), priority=60))
    assert broker.queued == [2, 1]
    assert broker.round(NOW) == [2]


def test_many_jobs_in_use_are_named_by_the_first_and_counted() -> None:
    broker = broker_with({POLICY: 9})
    for number in range(1, 11):
        broker.submit(request(number, Need(POLICY)))
    broker.round(NOW)
    assert words(broker, 10) == (
        "policy 'nightly' has 9 of 9 jobs running: jobs 1, 2, 3, 4, 5 and 4 more"
    )


def test_before_the_first_round_a_job_is_looked_at_next() -> None:
    broker = broker_with({UNIT: 1})
    broker.submit(request(1))
    assert [(job, wait.on) for job, wait in broker.waiting()] == [(1, None)]
    assert words(broker, 1) == "nothing: it is looked at next"


def test_needs_are_put_in_order_and_added_up() -> None:
    assert vector([Need(UNIT), Need(CLIENT), Need(UNIT, 2), Need(OTHER_UNIT)]) == (
        Need(CLIENT),
        Need(UNIT, 3),
        Need(OTHER_UNIT),
    )


@pytest.mark.parametrize("priority", [-1, 101])
def test_a_priority_that_does_not_exist_is_refused(priority: int) -> None:
    with pytest.raises(Invalid, match=f"priority {priority}"):
        request(1, priority=priority)


def test_amounts_limits_and_ageing_that_make_no_sense_are_refused() -> None:
    with pytest.raises(Invalid, match="0 slots of storage unit 'default'"):
        request(1, Need(UNIT, 0))
    with pytest.raises(Invalid, match="-1 slots"):
        Broker().set_limit(UNIT, -1)
    with pytest.raises(Invalid, match="age"):
        Broker(timedelta())


def test_a_round_over_ten_thousand_queued_jobs_looks_at_each_about_once() -> None:
    broker = Broker()
    broker.set_limit(UNIT, 20)
    jobs = 10_000
    for number in range(jobs):
        client = Resource(Kind.CLIENT_STREAMS, f"client{number % 2500}")
        policy = Resource(Kind.POLICY_JOBS, f"policy{number % 300}")
        broker.set_limit(client, 1)
        broker.set_limit(policy, 4)
        needs = (Need(UNIT), Need(client), Need(policy))
        broker.submit(request(number, *needs, priority=number % 101))
    moment = NOW
    most_calls = 0
    ended = 0
    while broker.queued and ended < 3_000:
        most_calls = max(most_calls, calls_of(partial(broker.round, moment)))
        moment += timedelta(minutes=1)
        for job in broker.granted:
            broker.release(job)
            ended += 1
    assert ended >= 3_000
    assert most_calls < 15 * jobs


def calls_of(work: Callable[[], object]) -> int:
    """How many Python functions the work calls: no other program makes them more."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls
