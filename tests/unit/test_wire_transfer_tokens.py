"""Transfer tokens: only what the master signed is taken, and only for its time."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Invalid, NotAuthenticated
from holdfast.wire import transfer_tokens as tokens
from holdfast.wire.transfer_tokens import TransferGrant, check, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
GRANT = TransferGrant(
    job=7,
    fence=3,
    client="alpha",
    source="alpha:/srv,/größe",
    pool="ab" * 16,
    verbs=frozenset({"backup"}),
    expires_s=1_000,
    images=frozenset({"01" * 16, "02" * 16}),
    labels={"policy": "nightly", "kind": "full"},
    parent="03" * 16,
)
TEXT = sign(GRANT, KEY)

words = st.text(min_size=1, max_size=20)
numbers = st.integers(min_value=0, max_value=(1 << 63) - 1)
grants = st.builds(
    TransferGrant,
    job=numbers,
    fence=numbers,
    client=words,
    source=words,
    pool=words,
    verbs=st.sets(st.sampled_from(["backup", "restore"]), min_size=1).map(frozenset),
    expires_s=numbers,
    images=st.frozensets(words),
    labels=st.dictionaries(st.text(max_size=9), st.text(max_size=9)),
    parent=st.none() | words,
    host=st.none() | words,
)


bringing = st.builds(
    lambda grant, image: replace(grant, verbs=frozenset({"replicate"}), images=frozenset({image})),
    grants,
    words,
)


def signed(payload: bytes) -> str:
    """What a master's key would make of any payload."""
    parts = (payload, KEY.sign(tokens._CONTEXT + payload))
    return ".".join(base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in parts)


def plain(**changes: Any) -> dict[str, Any]:
    return {**json.loads(tokens._payload(GRANT)), **changes}


def canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


@given(grants | bringing)
def test_a_token_says_what_was_granted(grant: TransferGrant) -> None:
    assert check(sign(grant, KEY), PUBLIC, 0) == grant


@given(bringing)
def test_a_token_to_replicate_lets_one_image_be_brought_and_none_be_read(
    grant: TransferGrant,
) -> None:
    assert {grant.brought} == grant.images
    assert not grant.readable


@given(grants)
def test_a_token_to_back_up_or_restore_brings_no_image_of_another_pool(
    grant: TransferGrant,
) -> None:
    assert grant.brought is None


@pytest.mark.parametrize(
    ("verbs", "images"),
    [
        ({"replicate"}, set()),
        ({"replicate"}, {"a", "b"}),
        ({"replicate", "backup"}, {"a"}),
        ({"replicate", "restore"}, {"a"}),
    ],
)
def test_a_token_to_replicate_is_for_nothing_else(verbs: set[str], images: set[str]) -> None:
    grant = replace(GRANT, verbs=frozenset(verbs), images=frozenset(images))
    with pytest.raises(Invalid, match="one image"):
        sign(grant, KEY)
    with pytest.raises(NotAuthenticated, match="one image"):
        check(signed(tokens._payload(grant)), PUBLIC, 0)


@given(st.data())
def test_no_changed_byte_of_a_token_is_accepted(data: st.DataObject) -> None:
    raw = TEXT.encode()
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 127).filter(lambda one: one != raw[at]))
    changed = raw[:at] + bytes([byte]) + raw[at + 1 :]
    with pytest.raises(NotAuthenticated, match="not one that this site's master server made"):
        check(changed.decode(), PUBLIC, 0)


@given(st.data())
def test_no_shortened_or_lengthened_token_is_accepted(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TEXT)))
    more = data.draw(st.text(max_size=4))
    if (changed := TEXT[:at] + more) != TEXT:
        with pytest.raises(NotAuthenticated):
            check(changed, PUBLIC, 0)
    if more:
        with pytest.raises(NotAuthenticated):
            check(TEXT + more, PUBLIC, 0)


@given(st.text(max_size=300))
def test_no_text_but_a_token_is_accepted(text: str) -> None:
    with pytest.raises(NotAuthenticated):
        check(text, PUBLIC, 0)


def test_a_token_of_another_key_is_refused() -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(NotAuthenticated, match="not one that this site's master server made"):
        check(sign(GRANT, other), PUBLIC, 0)


def test_a_token_ends_with_a_little_leeway() -> None:
    assert check(TEXT, PUBLIC, 1_000 + tokens.LEEWAY_S) == GRANT
    with pytest.raises(NotAuthenticated, match="job 7 ended 31 s ago"):
        check(TEXT, PUBLIC, 1_000 + tokens.LEEWAY_S + 1)


@pytest.mark.parametrize(
    "data",
    [
        plain(v=2),
        plain(v=True),
        plain(job="7"),
        plain(job=True),
        plain(job=-1),
        plain(fence=1.0),
        plain(client=""),
        plain(source=None),
        plain(verbs=[]),
        plain(verbs=["backup", "delete"]),
        plain(verbs=["backup", "backup"]),
        plain(images="all"),
        plain(images=[1]),
        plain(images=["b", "a"]),
        plain(labels=[]),
        plain(labels={"policy": 1}),
        plain(parent=""),
        plain(more="than is known"),
        {"v": 1},
        [],
        None,
    ],
)
def test_a_signed_payload_is_still_read_strictly(data: Any) -> None:
    with pytest.raises(NotAuthenticated):
        check(signed(canonical(data)), PUBLIC, 0)


@pytest.mark.parametrize(
    "payload",
    [json.dumps(plain()).encode(), b"", b"{", b"\xff", b"[" * 20_000, canonical(plain()) + b"\n"],
)
def test_a_signed_payload_in_another_form_is_refused(payload: bytes) -> None:
    with pytest.raises(NotAuthenticated):
        check(signed(payload), PUBLIC, 0)


@pytest.mark.parametrize(
    "grant",
    [
        replace(GRANT, job=-1),
        replace(GRANT, verbs=frozenset({"delete"})),
        replace(GRANT, verbs=frozenset()),
        replace(GRANT, client=""),
    ],
)
def test_what_would_not_be_accepted_is_not_signed(grant: TransferGrant) -> None:
    with pytest.raises(Invalid):
        sign(grant, KEY)


def test_a_token_that_would_not_fit_into_a_header_is_not_made() -> None:
    with pytest.raises(Invalid, match="characters of at most"):
        sign(replace(GRANT, source="alpha:" + "x" * tokens.LONGEST), KEY)


def test_a_backup_may_read_its_parent_and_a_restore_the_images_that_it_names() -> None:
    assert GRANT.readable == {"03" * 16}
    assert replace(GRANT, parent=None).readable == frozenset()
    restoring = replace(GRANT, verbs=frozenset({"restore"}))
    assert restoring.readable == {"01" * 16, "02" * 16}
    assert replace(GRANT, verbs=tokens.VERBS).readable == {"01" * 16, "02" * 16, "03" * 16}


def test_two_tokens_are_never_the_same() -> None:
    fresh = [
        TransferGrant(1, 1, "alpha", "alpha:/", "ab" * 16, frozenset({"backup"}), 1_000)
        for _ in range(2)
    ]
    assert sign(fresh[0], KEY) != sign(fresh[1], KEY)


def test_a_token_that_was_seen_ends_like_any_other() -> None:
    reader = tokens.TokenReader(PUBLIC)
    assert [reader.check(TEXT, now_s) for now_s in (0, 1_000)] == [GRANT, GRANT]
    with pytest.raises(NotAuthenticated, match="ended"):
        reader.check(TEXT, 1_000 + tokens.LEEWAY_S + 1)
    with pytest.raises(NotAuthenticated):
        reader.check(TEXT[:-1], 0)


def test_only_so_many_tokens_are_remembered() -> None:
    reader = tokens.TokenReader(PUBLIC)
    for job in range(tokens.KNOWN + 10):
        grant = replace(GRANT, job=job)
        assert reader.check(sign(grant, KEY), 0) == grant
    assert len(reader._known) == tokens.KNOWN
