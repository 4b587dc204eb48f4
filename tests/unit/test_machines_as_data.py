"""What a proxy saw of a machine is what its master reads."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from holdfast.sources.machines.machine import Disk, Machine, Network, State

TEXT = st.text(max_size=20)
DISKS = st.builds(
    Disk,
    name=TEXT,
    size=st.integers(min_value=0),
    place=TEXT,
    format=TEXT,
    left_out=st.none() | TEXT,
    allocated=st.none() | st.integers(min_value=0),
)
MACHINES = st.builds(
    Machine,
    uuid=TEXT,
    name=TEXT,
    host=TEXT,
    state=st.sampled_from(State),
    folder=TEXT,
    tags=st.lists(TEXT, max_size=3).map(tuple),
    guest=TEXT,
    disks=st.lists(DISKS, max_size=3).map(tuple),
    networks=st.lists(st.builds(Network, mac=TEXT, network=TEXT, model=TEXT), max_size=3).map(
        tuple
    ),
    memory=st.integers(min_value=0),
    cpus=st.integers(min_value=0),
    datastores=st.lists(TEXT, max_size=3).map(tuple),
)


@given(machine=MACHINES)
def test_a_machine_passes_json_unchanged(machine: Machine) -> None:
    assert Machine.from_json(json.loads(json.dumps(machine.to_json()))) == machine


@given(machine=MACHINES)
def test_what_a_newer_proxy_adds_is_passed_over(machine: Machine) -> None:
    plain = json.loads(json.dumps(machine.to_json()))
    plain["mood"] = "good"
    for disk in plain["disks"]:
        disk["colour"] = "blue"
    assert Machine.from_json(plain) == machine
