"""Content of files out of images, and what differs between images, out of a real pool."""

from __future__ import annotations

import json
import os
import random
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from holdfast.base import errors
from holdfast.control.access import Role, Scope
from holdfast.faces.api import contents
from tests.kit.api import give_pool
from tests.kit.real_pool import put_image, put_pool

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from tests.kit.api import Api

ODD = b'in\xe9 \xff"voice".txt'
SIZE = 300_007


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BLOCK_BYTES", 70_001)


@pytest.fixture
def content() -> bytes:
    return random.Random(5).randbytes(SIZE)


@pytest.fixture
def tree(tmp_path: Path, content: bytes) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "big").write_bytes(content)
    (tree / "empty").touch()
    (tree / "sub" / "Größe; 100%.txt").write_text("large")
    (tree / "link").symlink_to("big")
    with open(os.fsencode(tree) + b"/" + ODD, "wb") as file:
        file.write(b"odd")
    os.utime(tree / "big", (1_000_000_000, 1_000_000_000))
    return tree


@pytest.fixture
def image(api: Api, tree: Path, tmp_path: Path) -> ImageId:
    put_pool(api, tmp_path / "pool")
    return put_image(api, "web1", os.fsencode(tree))


def download(http: httpx.Client, image: str, path: Path | bytes, **headers: str) -> httpx.Response:
    given = os.fsencode(path)
    return http.get(
        f"/api/v1/images/{image}/content",
        params={"path_base64": b64encode(given).decode()},
        headers=headers,
    )


def restorer(api: Api) -> httpx.Client:
    return api.http(api.token(Role.RESTORE_OPERATOR))


def test_a_file_comes_out_as_it_was(api: Api, image: ImageId, tree: Path, content: bytes) -> None:
    http = restorer(api)
    plain = http.get(f"/api/v1/images/{image}/content", params={"path": str(tree / "big")})
    assert (plain.status_code, plain.content) == (200, content)
    assert plain.headers["content-length"] == str(SIZE)
    assert plain.headers["last-modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert plain.headers["content-disposition"] == 'attachment; filename="big"'
    assert plain.headers["content-type"] == "application/octet-stream"
    assert download(http, image, tree / "empty").content == b""


def test_names_survive_whatever_they_are_made_of(api: Api, image: ImageId, tree: Path) -> None:
    http = restorer(api)
    odd = download(http, image, os.fsencode(tree) + b"/" + ODD)
    assert odd.content == b"odd"
    assert odd.headers["content-disposition"] == (
        'attachment; filename="in_ __voice_.txt"; '
        "filename*=UTF-8''in%EF%BF%BD%20%EF%BF%BD%22voice%22.txt"
    )
    large = download(http, image, tree / "sub" / "Größe; 100%.txt")
    assert large.content == b"large"
    assert (
        "filename*=UTF-8''Gr%C3%B6%C3%9Fe%3B%20100%25.txt" in large.headers["content-disposition"]
    )


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=70000-140002", 70_000, 140_003),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        ("bytes=299000-999999999", 299_000, SIZE),
        ("bytes=150000-", 150_000, SIZE),
    ],
)
def test_a_range_is_that_part_of_the_file(
    api: Api, image: ImageId, tree: Path, content: bytes, wanted: str, begin: int, end: int
) -> None:
    part = download(restorer(api), image, tree / "big", Range=wanted)
    assert (part.status_code, part.content) == (206, content[begin:end])
    assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{SIZE}"
    assert part.headers["content-length"] == str(end - begin)


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=-", "bytes", "bytes=a-b", ""]
)
def test_what_is_no_single_range_is_answered_with_the_whole(
    api: Api, image: ImageId, tree: Path, content: bytes, wanted: str
) -> None:
    whole = download(restorer(api), image, tree / "big", Range=wanted)
    assert (whole.status_code, whole.content) == (200, content)


def test_a_range_beyond_the_end_is_told_with_the_length(
    api: Api, image: ImageId, tree: Path
) -> None:
    http = restorer(api)
    for name, wanted, size in (
        ("big", f"bytes={SIZE}-", SIZE),
        ("big", "bytes=-0", SIZE),
        ("empty", "bytes=0-", 0),
    ):
        refused = download(http, image, tree / name, Range=wanted)
        assert (refused.status_code, refused.json()["status"]) == (416, 416)
        assert refused.headers["content-range"] == f"bytes */{size}"


def test_a_download_goes_on_if_the_file_is_the_same(
    api: Api, image: ImageId, tree: Path, content: bytes
) -> None:
    http = restorer(api)
    tag = download(http, image, tree / "big").headers["etag"]
    rest = download(http, image, tree / "big", **{"Range": "bytes=9-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, content[9:])
    other = download(http, image, tree / "empty").headers["etag"]
    whole = download(http, image, tree / "big", **{"Range": "bytes=9-", "If-Range": other})
    assert (whole.status_code, whole.content) == (200, content)


def test_what_has_no_content_is_refused(api: Api, image: ImageId, tree: Path) -> None:
    http = restorer(api)
    for path, kind in ((tree, "dir"), (tree / "link", "symlink")):
        refused = download(http, image, path)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
        assert f"kind '{kind}'" in refused.json()["detail"]
    assert download(http, image, tree / "none").json()["code"] == "path-missing"
    assert download(http, image, b"/a/../b").json()["code"] == "invalid"
    assert download(http, "0" * 32, tree / "big").json()["code"] == "image-missing"


def test_each_download_is_audited_before_it_goes_out(api: Api, image: ImageId, tree: Path) -> None:
    download(restorer(api), image, tree / "big", Range="bytes=10-19")
    row = api.audited()[-1].entry
    details = json.loads(row.details)
    assert (row.who, row.what, row.outcome) == ("restore-operator", "read_content", "done")
    assert row.about == f"images/{image}/content"
    assert (details["first_byte"], details["end"]) == (10, 20)
    assert details["query"] == [["path_base64", b64encode(os.fsencode(tree / "big")).decode()]]


def test_whoever_is_bounded_gets_nothing_of_others(
    api: Api, image: ImageId, tree: Path, content: bytes
) -> None:
    theirs = put_image(api, "db1", os.fsencode(tree))
    http = api.http(api.token(Role.RESTORE_OPERATOR, Scope(("web*",))))
    assert download(http, image, tree / "big").content == content
    refused = download(http, theirs, tree / "big")
    assert (refused.status_code, refused.json()["code"]) == (404, "image-missing")
    for one, other in ((image, theirs), (theirs, image)):
        for end in ("changes", "changes/export"):
            answer = http.get(f"/api/v1/images/{one}/{end}", params={"since": other})
            assert (answer.status_code, answer.json()["code"]) == (404, "image-missing")
    assert http.get(f"/api/v1/images/{image}/changes").status_code == 200


def test_without_a_pool_it_is_said_clearly(api: Api, image: ImageId, tree: Path) -> None:
    give_pool(api.master.site, errors.NotAPool("there is no pool at /srv/pool", "mount it"))
    http = api.http(api.token(Role.ADMINISTRATOR))
    for end in (f"images/{image}/content?path=/a", f"images/{image}/changes", "pool"):
        answer = http.get(f"/api/v1/{end}")
        assert (answer.status_code, answer.json()["code"]) == (503, "not-a-pool")
        assert answer.json()["hint"] == "mount it"


def bytes_of(row: dict[str, Any]) -> bytes:
    encoded = row["path_base64"]
    return b64decode(encoded) if encoded else row["path"].encode()


def test_differences_come_in_pages_and_as_a_stream(api: Api, image: ImageId, tree: Path) -> None:
    (tree / "big").write_bytes(b"other")
    (tree / "empty").unlink()
    (tree / "new").mkdir()
    for number in range(7):
        (tree / "new" / f"{number}").touch()
    os.rename(os.fsencode(tree) + b"/" + ODD, os.fsencode(tree) + b"/\xfe")
    later = put_image(api, "web1", os.fsencode(tree))
    client = api.client(api.token(Role.OPERATOR))
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get(f"/images/{later}/changes", since=image, limit=3, cursor=cursor)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    changes = {bytes_of(one): one["change"] for one in found}
    below = os.fsencode(tree)
    assert len(changes) == len(found)
    assert changes == {
        below: "changed",
        below + b"/big": "changed",
        below + b"/empty": "removed",
        below + b"/new": "added",
        **{below + b"/new/%d" % number: "added" for number in range(7)},
        below + b"/" + ODD: "removed",
        below + b"/\xfe": "added",
    }
    http = restorer(api)
    whole = http.get(f"/api/v1/images/{later}/changes/export", params={"since": image})
    assert whole.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in whole.text.splitlines()] == found
    same = http.get(f"/api/v1/images/{image}/changes/export", params={"since": image})
    assert same.text == ""


def test_without_another_image_everything_is_listed(api: Api, image: ImageId, tree: Path) -> None:
    rows = api.client().get(f"/images/{image}/changes", limit=1000)["items"]
    names = {bytes_of(one) for one in rows if one["change"] == "added"}
    walked = {
        os.path.join(top, name)
        for top, dirs, files in os.walk(os.fsencode(tree))
        for name in (*dirs, *files)
    }
    assert walked <= names
    (big,) = [one for one in rows if one["path"] == str(tree / "big")]
    assert (big["kind"], big["size_bytes"]) == ("file", SIZE)
