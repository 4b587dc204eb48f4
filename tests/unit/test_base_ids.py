"""Identifiers, and how people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import ids
from holdfast.base.errors import Invalid

ID = "0123456789abcdef0123456789abcdef"


def test_an_image_id_is_read_in_either_case() -> None:
    assert ids.image_id(ID.upper()) == ID
    assert ids.copy_id(ID) == ID


@pytest.mark.parametrize("text", ["", ID[:-1], ID + "0", "g" * 32, ID[:-1] + "\n"])
def test_what_is_no_image_id_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        ids.image_id(text)


def test_a_pool_id_is_sixteen_bytes() -> None:
    assert ids.pool_id(bytes.fromhex(ID)) == ID
    with pytest.raises(Invalid):
        ids.pool_id(b"short")


@pytest.mark.parametrize("text", ["", "a b", "a:b", "a,b", "a\n"])
def test_a_client_name_keeps_source_names_readable(text: str) -> None:
    with pytest.raises(Invalid):
        ids.client_name(text)


@pytest.mark.parametrize("text", ["web", "0", "a.b_c-d", "x" * 63, "adhoc"])
def test_a_policy_name_is_plain(text: str) -> None:
    assert ids.policy_name(text) == text


@pytest.mark.parametrize("text", ["", "Web", "-a", ".a", "a b", "a/b", "ä", "x" * 64, "a\n"])
def test_what_can_not_name_a_policy_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        ids.policy_name(text)


def test_a_source_is_named_by_its_client_and_paths() -> None:
    web = ids.client_name("web1")
    assert ids.source_name(web, [b"/etc", b"/srv"]) == "web1:/etc,/srv"
    assert ids.source_name(web, [b"/\xff"]) == "web1:/\\xff"


def test_a_prefix_of_an_id_is_told_from_a_word() -> None:
    assert ids.is_image_prefix("3F")
    assert not ids.is_image_prefix("latest")
    assert not ids.is_image_prefix("")


@pytest.mark.parametrize(
    ("text", "image", "path"),
    [
        ("latest", "latest", b"/"),
        ("latest:", "latest", b"/"),
        ("3f2a:/etc/hosts", "3f2a", b"/etc/hosts"),
        ("3f2a:etc//hosts/", "3f2a", b"/etc/hosts"),
        ("latest:/a:b/./c", "latest", b"/a:b/c"),
        ("latest:/\udcff", "latest", b"/\xff"),
    ],
)
def test_image_and_path_are_taken_apart(text: str, image: str, path: bytes) -> None:
    assert ids.parse_image_path(text) == ids.ImagePath(image, path)


@pytest.mark.parametrize("text", ["", ":", ":/etc", "latest:../etc", "latest:/a/../b"])
def test_what_names_nothing_inside_an_image_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        ids.parse_image_path(text)


@given(st.binary(max_size=60).filter(lambda path: b"\0" not in path))
def test_a_clean_path_stays_as_it_is(path: bytes) -> None:
    try:
        clean = ids.clean_path(path)
    except Invalid:
        assert b".." in path.split(b"/")
        return
    assert clean.startswith(b"/")
    assert ids.clean_path(clean) == clean
