"""Any policy is written down and read back as it was; any rubbish is told, not fallen over."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.control.policies import Format, Policy, from_data, from_plain, parse, render, to_plain
from tests.kit.policies import POLICIES, TEXTS

FORMATS = st.sampled_from(Format)


@given(st.lists(POLICIES, max_size=3), FORMATS)
def test_what_is_rendered_is_parsed_as_the_same_policies(
    policies: list[Policy], form: Format
) -> None:
    read = parse(render(policies, form), form)
    assert read.findings == ()
    assert list(read.policies) == policies


@given(POLICIES, st.booleans())
def test_plain_data_survive_json(policy: Policy, whole: bool) -> None:
    text = json.dumps(to_plain(policy, whole=whole))
    assert from_plain(json.loads(text)) == (policy, [])


@given(st.lists(POLICIES, max_size=2))
def test_a_reader_with_the_surprises_of_yaml_reads_the_same(policies: list[Policy]) -> None:
    plain = json.loads(json.dumps([to_plain(one) for one in policies]))
    assert yaml.safe_load(render(policies, Format.YAML)) == {"policy": plain}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)


@st.composite
def spoiled(draw: st.DrawFn) -> object:
    """The plain data of a policy with something else in one place."""
    plain = json.loads(json.dumps(to_plain(draw(POLICIES), whole=True)))
    at = plain
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or draw(st.booleans()):
            at[key] = draw(JSON)
            break
        at = at[key]
    return plain


@given(spoiled())
def test_a_policy_with_rubbish_in_it_is_told_or_taken_as_it_stands(value: object) -> None:
    policy, findings = from_plain(value)
    assert policy is not None
    for one in findings:
        assert one.policy is not None
        assert one.message
    if not findings:
        assert from_plain(to_plain(policy, whole=True)) == (policy, [])


@given(JSON)
def test_any_data_are_read_or_told(value: object) -> None:
    document = from_data({"policy": [value]})
    assert document.policies or document.findings


@pytest.mark.parametrize("form", Format)
@given(text=st.text(max_size=200) | st.sampled_from(["[" * 5000, "a: " * 5000, "{" * 5000]))
def test_any_text_is_read_or_told(form: Format, text: str) -> None:
    parse(text, form)
