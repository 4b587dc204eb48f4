"""What commands do on the machine, somebody far away has a served site do: seen, and true."""

from __future__ import annotations

import os
import random
from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from holdfast.faces.cli.api_client import ApiClient, at
from holdfast.site import local_socket
from tests.kit.served import served, until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command


@pytest.fixture(params=["sqlite", "postgresql"])
def anywhere(site: Command, request: pytest.FixtureRequest) -> Command:
    """A site, with its control database on each kind."""
    if request.param == "sqlite":
        return site
    url: str = request.getfixturevalue("postgres_url")
    return replace(site, environ={"HOLDFAST_DATABASE_URL": url})


def ended(api: ApiClient, job: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(at("jobs", job))
        return found if found["state"] == "ended" else None

    found = until(look, f"job {job} to end")
    assert found is not None
    return found


def done(api: ApiClient, place: str, body: dict[str, Any] | None = None) -> list[str]:
    """Have something done; what its job says of it."""
    job = api.post(place, body)["job"]
    assert ended(api, job)["outcome"] == "completed"
    return [one["message"] for one in api.get(at("jobs", job, "events"))["items"]]


def test_a_site_is_used_from_afar_alone(anywhere: Command, tree: Path, tmp_path: Path) -> None:
    big = random.Random(6).randbytes(9_000_000)
    (tree / "big").write_bytes(big)
    odd = os.fsencode(tree) + b"/\xff odd"
    with open(odd, "wb") as file:
        file.write(b"odd")
    place = anywhere.home / local_socket.NAME
    with served(anywhere) as running, ApiClient.of_socket(place) as api:
        first, second, third = (
            ended(api, api.post("/backups", {"paths": [str(tree)]})["job"])["image_id"]
            for _ in range(3)
        )
        listed = api.get("/images")["items"]
        assert [(one["id"], one["policy"]) for one in listed] == [
            (one, "adhoc") for one in (third, second, first)
        ]
        changed = api.get(f"/images/{third}/changes", since=first)["items"]
        # The directories that lead to it are anybody's.
        assert [one for one in changed if one["path"].startswith(str(tree))] == []
        transport = httpx.HTTPTransport(uds=str(place))
        with httpx.Client(transport=transport, base_url="http://holdfast") as http:
            content = f"/api/v1/images/{third}/content"
            whole = http.get(content, params={"path": str(tree / "big")})
            assert whole.content == big
            named = {"path_base64": b64encode(odd).decode()}
            part = http.get(content, params=named, headers={"Range": "bytes=1-"})
            assert (part.status_code, part.content) == (206, b"dd")
        back = {
            "target": str(tmp_path / "back"),
            "paths_base64": [named["path_base64"]],
            "verify": True,
        }
        assert ended(api, api.post(at("images", third, "restores"), back)["job"])["outcome"] == (
            "completed"
        )
        fed = f"/images/{third}/files"
        until(lambda: api.get("/catalog")["states"]["indexed"] == 3, "the catalog to be fed")
        assert api.get(fed, path=str(tree.parent))["items"][0]["name"] == tree.name
        assert "images fed: 0" in done(api, "/catalog/updates")
        assert "sources" in done(api, "/catalog/rebuilds")[0]
        assert api.get(fed, path=str(tree.parent))["items"][0]["name"] == tree.name
        assert api.get("/retention/preview", last=2)["go"] == 1
        assert done(api, "/retention/applications", {"rules": {"last": 2}})[0].startswith("1 of 3")
        done(api, "/expirations", {"images": [second]})
        assert [one["id"] for one in api.get("/images")["items"]] == [third]
        assert "would be freed" in done(api, "/pool/collections", {"dry_run": True})[0]
        assert "freed" in done(api, "/pool/collections")[0]
        for act in ("/pool/checks", "/pool/verifications"):
            assert "0 problems" in done(api, act, {"read_data": True})[0]
        assert "1 images" in done(api, "/pool/verifications", {"images": [third]})[0]
        assert "the index has" in done(api, "/pool/index")[0]
        assert [one["kind"] for one in api.get("/pool/keys")["items"]] == ["key-file"]
        running.stop()
    assert (tmp_path / "back" / os.fsdecode(odd)[1:]).read_bytes() == b"odd"
    anywhere("restore", "latest", "--to", tmp_path / "all", "--verify").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "all") + os.fsencode(tree))
