"""Images through the API: listed, looked at, kept, let go."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

import pytest

from holdfast.base import errors
from holdfast.control.access import Role, Scope
from tests.kit.fake_pool import FakePool

if TYPE_CHECKING:
    from holdfast.faces.cli.api_client import ApiClient
    from tests.kit.api import Api
    from tests.kit.fake_pool import FakeImage


def pool_of(api: Api) -> FakePool:
    return cast("FakePool", api.master.site.pool)


def ids(client: ApiClient, limit: int) -> list[str]:
    """Of all images, asked for in pages."""
    page = client.get("/images", limit=limit)
    found = page["items"]
    while page["next_cursor"] is not None:
        page = client.get("/images", limit=limit, cursor=page["next_cursor"])
        found += page["items"]
    return [one["id"] for one in found]


@pytest.fixture
def made(api: Api) -> list[FakeImage]:
    """Images of two clients, newest first."""
    pool = pool_of(api)
    images = [pool.backup({}, f"{client}:/srv") for _ in range(3) for client in ("web1", "db1")]
    for image in images:
        api.master.catalog.record_image(image, pool.pool_id)
    return images[::-1]


def test_images_are_listed_in_pages_and_read(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    assert ids(client, 2) == [one.id for one in made]
    of_one = client.get("/images", client="db1")["items"]
    assert [one["id"] for one in of_one] == [one.id for one in made if one.host == "db1"]
    assert client.get("/images", source="web1:/srv", policy="none")["items"] == []
    since = of_one[1]["started_at"]
    assert len(client.get("/images", since=since)["items"]) == 3
    ever = client.get("/images", since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z")
    assert len(ever["items"]) == len(made)
    shown = client.get(f"/images/{made[0].id}")
    assert (shown["client"], shown["holds"], shown["locked_until"]) == ("db1", [], None)
    assert [one["pool"] for one in shown["copies"]] == [pool_of(api).pool_id]
    with pytest.raises(errors.ImageMissing):
        client.get(f"/images/{'0' * 32}")
    with pytest.raises(errors.Invalid):
        client.get("/images/latest")


def test_an_image_is_held_for_reasons_and_let_go_when_none_is_left(
    api: Api, made: list[FakeImage]
) -> None:
    client, place = api.client(), f"/images/{made[0].id}"
    for reason in ("case 17", "  audit\n of 2026 ", "case 17"):
        held = client.post(f"{place}/holds", {"reason": reason})
    assert sorted(held["holds"]) == ["audit of 2026", "case 17"]
    with pytest.raises(errors.ImageProtected, match="is held"):
        client.delete(place)
    with pytest.raises(errors.NotFound, match="not held for 'x'"):
        client.delete(f"{place}/holds", reason="x")
    client.delete(f"{place}/holds", reason="case 17")
    assert client.get(place)["holds"] == ["audit of 2026"]
    client.delete(f"{place}/holds")
    with pytest.raises(errors.NotFound, match="is not held"):
        client.delete(f"{place}/holds")
    with pytest.raises(errors.Invalid, match="needs a reason"):
        client.post(f"{place}/holds", {"reason": " \n"})
    client.delete(place)
    with pytest.raises(errors.ImageMissing):
        client.get(place)
    assert made[0].id not in {one.id for one in pool_of(api).images()}
    acts = [(row.entry.what, row.entry.outcome) for row in api.audited()]
    assert acts.count(("expire_image", "refused")) == 1
    assert acts.count(("expire_image", "done")) == 1


def test_a_lock_is_made_longer_and_never_shorter(api: Api, made: list[FakeImage]) -> None:
    client, place = api.client(), f"/images/{made[0].id}"
    now = api.clock.now()

    def lock(days: int) -> None:
        client.put(f"{place}/lock", {"until": (now + timedelta(days=days)).isoformat()})

    with pytest.raises(errors.Invalid, match="is past"):
        lock(0)
    with pytest.raises(errors.Invalid, match="too far away"):
        lock(365 * 400)
    lock(3)
    lock(9)
    with pytest.raises(errors.ImageProtected, match="already"):
        lock(8)
    assert api.http(None).get("/api/v1/images").status_code == 401
    http = api.http(api.token(Role.ADMINISTRATOR))
    answer = http.delete(f"/api/v1{place}")
    assert (answer.status_code, answer.json()["code"]) == (409, "image-protected")


def test_whoever_is_bounded_sees_and_touches_images_of_own_clients_only(
    api: Api, made: list[FakeImage]
) -> None:
    client = api.client(api.token(Role.ADMINISTRATOR, Scope(("web*",))))
    theirs = [one for one in made if one.host == "web1"]
    other = next(one for one in made if one.host == "db1")
    assert ids(client, 2) == [one.id for one in theirs]
    assert client.get("/images", client="db1")["items"] == []
    unknown = ""
    for image in (other.id, "0" * 32):
        place = f"/images/{image}"
        for ask in (
            lambda place=place: client.get(place),
            lambda place=place: client.delete(place),
            lambda place=place: client.post(f"{place}/holds", {"reason": "x"}),
            lambda place=place: client.delete(f"{place}/holds"),
            lambda place=place: client.put(f"{place}/lock", {"until": "2199-01-01T00:00:00Z"}),
        ):
            with pytest.raises(errors.ImageMissing) as refused:
                ask()
            # Nothing tells whether it is there.
            said = refused.value.message.replace(image, "")
            unknown = unknown or said
            assert said == unknown
    client.delete(f"/images/{theirs[0].id}")
    assert len(api.master.catalog.images()) == len(made) - 1
