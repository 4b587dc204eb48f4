"""Queries for virtual machines: what they select, how they are written, what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.base.units import parse_size
from holdfast.control.hypervisors import VirtualMachine, parse
from holdfast.control.hypervisors.query import (
    DEEPEST,
    FIELDS,
    LONGEST,
    SIZES,
    And,
    Comparison,
    Not,
    Or,
    Query,
)
from holdfast.sources.machines.machine import Disk, Machine, Network, State

GIB = 1 << 30
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def machine(name: str = "web1", **more: object) -> VirtualMachine:
    given: dict[str, object] = {
        "uuid": "0b5c1f2e-0000-4000-8000-000000000001",
        "name": name,
        "host": "esx7",
        "state": State.RUNNING,
        "folder": "/prod/web",
        "tags": ("env=prod", "backup"),
        "guest": "Debian GNU/Linux 12",
        "disks": (Disk("vda", 20 * GIB, "/d/a", "qcow2"), Disk("vdb", 30 * GIB, "/d/b", "raw")),
        "networks": (Network("52:54:00:00:00:01", "dmz"),),
        "memory": 4 * GIB,
        "datastores": ("fast",),
    }
    return VirtualMachine("esx", Machine(**given | more), NOW, NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "web1", "WEB*", "name=web?", "name=w[ae]b1", "host=esx7", "hypervisor=esx",
        "tag=backup", 'tag="env=prod"', "tag=env=prod", "tag=e*=p*", "folder=/prod/*",
        'guest="debian gnu*"', "guest=debian*", "size=50G", "size>=50GiB", "size<51G", "size!=1",
        "state=running", "datastore=fast", "network=dmz", "memory>1G", "name!=db*", "not db*",
        "not not web1", "web1 and tag=backup", "db1 or web1", "(db1 or web1) and not state=off",
        "db1 and db2 or web1", "NOT db1 AND Web1", "  web1  ", 'name="web1"', "uuid=0b5c*",
    ],
)  # fmt: skip
def test_what_a_query_says_of_a_machine_holds(text: str) -> None:
    assert parse(text).matches(machine())
    assert not parse(f"not ({text})").matches(machine())


@pytest.mark.parametrize(
    "text",
    ["web", "web2", "tag=back", "size<50G", "size>50G", "name!=web1", "folder=/prod", "state=off",
     "web1 and db1", "not web*", "tag!=backup", "db1 and (db2 or web1)", 'guest=""'],
)  # fmt: skip
def test_what_does_not_hold_selects_nothing(text: str) -> None:
    assert not parse(text).matches(machine())


def test_of_several_tags_one_is_enough_and_none_is_none() -> None:
    assert not parse("tag=*").matches(machine(tags=()))
    assert parse("tag!=backup").matches(machine(tags=()))
    assert parse("guest=*").matches(machine(guest=""))


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ("", 1, "it ends where a comparison is expected"),
        ("web1 and", 9, "it ends where a comparison"),
        ("nmae=web1", 1, "there is no field 'nmae'"),
        ("web1 db1", 6, "'db1' is not expected here"),
        ("web1 and or", 10, "here is 'or' instead of"),
        ("(web1 or db1", 13, "the parenthesis of character 1 is not closed"),
        ("(web1 db1)", 7, "the parenthesis of character 1 is not closed"),
        ("web1)", 5, "'\\)' is not expected here"),
        ("name<web1", 5, "'name' is text, which '<' does not compare"),
        ("size>much", 6, "'much' is not a size"),
        ("size>1e5", 6, "is not a size"),
        ("tag=", 5, "it ends where what 'tag' is compared with is expected"),
        ("tag==x", 5, "here is '=' instead of what 'tag' is compared with"),
        ('name="web', 6, "a quotation mark is not closed"),
        ('"name"=web', 1, "there is no field 'name'"),
        ("not", 4, "it ends where a comparison"),
        ("web!", 4, "'!' means nothing here"),
        ("size<" + "9" * 400 + ".5", 6, "is not a size"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, at: int, why: str) -> None:
    with pytest.raises(Invalid, match=f"at character {at}: .*{why}"):
        parse(text)


def test_a_field_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(Invalid) as told:
        parse("nmae=web1")
    assert told.value.hint == "did you mean 'name'?"


def test_a_query_has_its_bounds() -> None:
    assert parse("(" * DEEPEST + "web1" + ")" * DEEPEST).matches(machine())
    with pytest.raises(Invalid, match="levels deep"):
        parse("(" * 300 + "web1" + ")" * 300)
    with pytest.raises(Invalid, match="levels deep"):
        parse("not " * 300 + "web1")
    with pytest.raises(Invalid, match="characters at most"):
        parse("a" * (LONGEST + 1))


texts = st.text(min_size=0, max_size=8)
sizes = st.integers(0, 1 << 50).map(str) | st.sampled_from(["5G", "1.5 TiB", "10 MB"])
tests = st.one_of(
    st.builds(
        Comparison, st.sampled_from(sorted(SIZES)), st.sampled_from(["=", "<", ">=", "!="]), sizes
    ),
    st.builds(
        Comparison,
        st.sampled_from([one for one in FIELDS if one not in SIZES]),
        st.sampled_from(["=", "!="]),
        texts,
    ),
)


def several(inner: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    some = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(And, some), st.builds(Or, some), st.builds(Not, inner))


queries = st.recursive(tests, several, max_leaves=8)
machines = st.builds(
    machine,
    st.text(max_size=6),
    tags=st.lists(texts, max_size=3).map(tuple),
    folder=texts,
    state=st.sampled_from(State),
    memory=st.integers(0, 1 << 40),
)


@given(queries)
def test_what_is_written_is_read_back(query: Query) -> None:
    assert parse(str(query)) == query


@given(queries, machines)
def test_a_query_means_what_logic_says(query: Query, one: VirtualMachine) -> None:
    def judged(part: Query) -> bool:
        match part:
            case And(parts):
                return all(judged(each) for each in parts)
            case Or(parts):
                return any(judged(each) for each in parts)
            case Not(inner):
                return not judged(inner)
            case Comparison(field, comparison, value) if field in SIZES:
                size = SIZES[field](one)
                wanted = parse_size(value)
                return {"=": size == wanted, "<": size < wanted, ">=": size >= wanted}.get(
                    comparison, size != wanted
                )
            case _:
                return part.matches(one)

    assert parse(str(query)).matches(one) == judged(query)


@given(st.text(max_size=40))
def test_any_text_is_a_query_or_is_refused(text: str) -> None:
    try:
        query = parse(text)
    except Invalid:
        with pytest.raises(Invalid, match="at character"):
            parse(text)
    else:
        assert parse(str(query)) == query


@given(st.text(alphabet='()!=<>" andortgsize*1G', max_size=30), machines)
def test_what_looks_like_a_query_never_breaks(text: str, one: VirtualMachine) -> None:
    try:
        query = parse(text)
    except Invalid:
        return
    query.matches(one)
