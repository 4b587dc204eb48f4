"""Which addresses are used together, and how one that failed comes back."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.movers.transfer.paths import (
    LONGEST_REST_S,
    Path,
    PathState,
    local_addresses,
    make_paths,
    read_addresses,
)

LOCAL = [ip_interface(one) for one in ("10.0.1.5/24", "10.0.2.5/24", "fd00::5/64")]


def test_addresses_of_one_network_belong_together() -> None:
    servers = [("10.0.1.9", 7000), ("10.0.2.9", 7000), ("fd00::9", 7000), ("10.0.1.9", 7000)]
    assert make_paths(servers, LOCAL) == [
        Path("10.0.1.9", 7000, "10.0.1.5"),
        Path("10.0.2.9", 7000, "10.0.2.5"),
        Path("fd00::9", 7000, "fd00::5"),
    ]


def test_a_server_beyond_a_router_is_tried_from_every_address() -> None:
    assert make_paths([("192.0.2.1", 1)], LOCAL) == [
        Path("192.0.2.1", 1, "10.0.1.5"),
        Path("192.0.2.1", 1, "10.0.2.5"),
    ]


def test_where_there_is_no_choice_the_system_chooses() -> None:
    assert make_paths([("localhost", 1), ("127.0.0.1", 2), ("::1", 3)], LOCAL) == [
        Path("localhost", 1),
        Path("127.0.0.1", 2),
        Path("::1", 3),
    ]
    assert make_paths([("192.0.2.1", 1)], LOCAL[:1]) == [Path("192.0.2.1", 1)]
    assert make_paths([("192.0.2.1", 1)], []) == [Path("192.0.2.1", 1)]


def test_only_those_that_were_chosen_are_used() -> None:
    chosen = read_addresses(["10.0.2.5"])
    servers = [("10.0.1.9", 1), ("192.0.2.1", 1)]
    assert make_paths(servers, LOCAL, chosen) == [Path(one, 1, "10.0.2.5") for one, _ in servers]
    # With one in its own network alone: to the others the way would be another's.
    beside = [*servers, ("10.0.2.9", 1)]
    assert make_paths(beside, LOCAL, chosen) == [Path("10.0.2.9", 1, "10.0.2.5")]
    # Also where the system would choose, and to a name.
    assert make_paths([("media.example", 1)], [], chosen) == [Path("media.example", 1, "10.0.2.5")]
    assert make_paths([("127.0.0.1", 1)], LOCAL, chosen) == [Path("127.0.0.1", 1)]
    # None of its kind is none that was not chosen.
    assert make_paths([("fd00::9", 1)], LOCAL, chosen) == []


def test_of_those_that_were_chosen_the_near_one_is_used() -> None:
    chosen = read_addresses(["10.0.1.5", "10.0.2.5", "fd00::5"])
    servers = [("10.0.1.9", 1), ("192.0.2.1", 1), ("fd00::9", 1)]
    assert make_paths(servers, LOCAL, chosen) == [
        Path("10.0.1.9", 1, "10.0.1.5"),
        Path("10.0.1.9", 1, "10.0.2.5"),
        Path("192.0.2.1", 1, "10.0.2.5"),
        Path("fd00::9", 1, "fd00::5"),
    ]


def test_addresses_are_read_strictly() -> None:
    assert read_addresses([" 10.0.1.5", "10.0.1.5", "fd00::5"]) == (
        ip_address("10.0.1.5"),
        ip_address("fd00::5"),
    )
    for text in ("", "10.0.1", "10.0.1.5/24", "web1", "0.0.0.0", "::", "224.0.0.1", "x" * 500):
        with pytest.raises(Invalid):
            read_addresses([text])


def test_own_addresses_reach_beyond_this_machine() -> None:
    assert not any(one.ip.is_loopback for one in local_addresses())


def test_a_path_that_fails_rests_longer_each_time_and_not_for_ever() -> None:
    now_s = 0.0
    state = PathState(Path("10.0.1.9", 1), lambda: now_s)
    rests = []
    for _ in range(12):
        state.failed(OSError("no way"))
        rests.append(state.rest_s())
        # Others that fail in the same rest count as one.
        state.failed(OSError("no way"))
        assert state.rest_s() == rests[-1]
        now_s += rests[-1]
        assert state.rest_s() == 0
    assert rests[0] < 0.1
    assert LONGEST_REST_S / 2 <= rests[-1] <= LONGEST_REST_S * 1.5
    state.went_well(10, 2.0)
    state.failed(OSError("no way"))
    assert state.rest_s() < 0.1
    assert (state.rate_bytes_per_s, state.last_error) == (5.0, "no way")


@given(st.lists(st.ip_addresses(), max_size=4), st.lists(st.ip_addresses(), max_size=4))
def test_every_server_has_a_path_and_none_twice(servers: list[object], own: list[object]) -> None:
    local = [ip_interface(f"{one}/24") for one in own]
    paths = make_paths([(str(one), 7) for one in servers], local)
    assert len(paths) == len(set(paths)) or len(local) != len(set(local))
    assert {path.host for path in paths} == {str(one) for one in servers}
