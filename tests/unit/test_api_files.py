"""Files, clients and sources through the API, as far as somebody sees them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, cast

import pytest

from holdfast.base import errors
from holdfast.base.ids import ImageId
from holdfast.control.access import Role, Scope
from tests.kit.fake_pool import FakePool, tree_of

if TYPE_CHECKING:
    from tests.kit.api import Api
    from tests.kit.fake_pool import FakeImage

ODD = b"/srv/\xff\xfe/in\xe9 voice"
TREE = tree_of(b"/srv/a", b"/srv/invoice", ODD, "/srv/é".encode(), b"/srv/\\xff")


@pytest.fixture
def made(api: Api) -> list[FakeImage]:
    """One image of each of two clients, fed to the catalog."""
    pool = cast("FakePool", api.master.site.pool)
    images = [pool.backup(TREE, f"{client}:/srv") for client in ("web1", "db1")]
    for image in images:
        api.master.catalog.record_image(image, pool.pool_id)
        api.master.catalog.ingest(pool, ImageId(image.id))
    return images


def test_a_directory_comes_in_pages_and_names_are_never_lost(
    api: Api, made: list[FakeImage]
) -> None:
    client, place = api.client(), f"/images/{made[0].id}/files"
    found = []
    cursor = None
    while True:
        page = client.get(place, path="/srv", limit=2, cursor=cursor)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    names = [
        b64decode(one["name_base64"]) if one["name_base64"] else one["name"].encode()
        for one in found
    ]
    assert names == sorted([b"a", b"invoice", b"\xff\xfe", "é".encode(), b"\\xff"])
    odd = b64encode(b"/srv/\xff\xfe").decode()
    (below,) = client.get(place, path_base64=odd)["items"]
    assert b64decode(below["name_base64"]) == b"in\xe9 voice"
    with pytest.raises(errors.PathMissing):
        client.get(place, path="/nowhere")
    with pytest.raises(errors.Invalid, match="path_base64"):
        client.get(place, path_base64="A")


def test_names_are_found_and_versions_listed(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    found = client.get("/find", pattern="voice")
    assert {(one["source"], one["path_base64"] is None) for one in found["items"]} == {
        (source, plain) for source in ("web1:/srv", "db1:/srv") for plain in (True, False)
    }
    assert found["more"] is False
    some = client.get("/find", pattern="voice", source="web1:/srv", limit=1)
    assert (len(some["items"]), some["more"]) == (1, True)
    odd = b64encode(ODD).decode()
    (version,) = client.get("/versions", source="web1:/srv", path_base64=odd)["items"]
    assert (version["last_image"], version["path_base64"]) == (made[0].id, odd)
    assert client.get("/versions", source="web1:/srv", path="/nowhere")["items"] == []
    with pytest.raises(errors.NotFound, match="no source 'x'"):
        client.get("/versions", source="x", path="/srv/a")


def test_clients_and_sources_are_listed(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    page = client.get("/clients", limit=1)
    assert page["items"] == [{"name": "db1"}]
    rest = client.get("/clients", limit=1, cursor=page["next_cursor"])
    assert (rest["items"], rest["next_cursor"]) == ([{"name": "web1"}], None)
    (source,) = client.get("/sources", client="web1")["items"]
    assert (source["name"], source["newest_image"]) == ("web1:/srv", made[0].id)


def test_whoever_is_bounded_finds_own_clients_only(api: Api, made: list[FakeImage]) -> None:
    client = api.client(api.token(Role.RESTORE_OPERATOR, Scope(("web*",))))
    found = client.get("/find", pattern="invoice")["items"]
    assert [one["source"] for one in found] == ["web1:/srv"]
    assert [one["name"] for one in client.get("/clients")["items"]] == ["web1"]
    assert [one["name"] for one in client.get("/sources")["items"]] == ["web1:/srv"]
    with pytest.raises(errors.NotFound, match="there is no source"):
        client.get("/find", pattern="a", source="db1:/srv")
    with pytest.raises(errors.NotFound, match="there is no source"):
        client.get("/versions", source="db1:/srv", path="/srv/a")
    with pytest.raises(errors.ImageMissing):
        client.get(f"/images/{made[1].id}/files")
