"""The API is the same in a process, on the local socket and over HTTPS."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi.sse import EventSourceResponse, ServerSentEvent

from holdfast.base import errors
from holdfast.control.access import Principal, Role, Verb
from holdfast.faces.api.app import make_app
from holdfast.faces.api.door import make_router, may
from holdfast.faces.api.models import Model
from holdfast.faces.api.serving import Https, serving_https, serving_locally
from holdfast.faces.cli.api_client import ApiClient
from holdfast.site import local_socket
from tests.kit.api import Api
from tests.kit.certificates import https_here

router = make_router("Things")

go_on = threading.Event()


class Count(Model):
    number: int


@router.get("/counting", response_class=EventSourceResponse)
def watch_counting(_: Annotated[Principal, may(Verb.SEE)]) -> Iterable[ServerSentEvent]:
    yield ServerSentEvent(data={"number": 1}, event="count", id="1")
    assert go_on.wait(30)
    yield ServerSentEvent(data={"number": 2}, event="count", id="2")


@router.get("/endless", response_class=EventSourceResponse)
def watch_endless(_: Annotated[Principal, may(Verb.SEE)]) -> Iterable[ServerSentEvent]:
    number = 0
    while True:
        number += 1
        yield ServerSentEvent(data={"number": number})


@pytest.fixture(params=["process", "socket", "https"])
def client(
    api: Api, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ApiClient]:
    """An operator, and a way to the API."""
    go_on.clear()
    api.app.include_router(router, prefix="/api/v1")
    token = api.token(Role.OPERATOR)
    with contextlib.ExitStack() as stack:
        if request.param == "process":
            yield stack.enter_context(ApiClient.of_application(api.app, token))
        elif request.param == "socket":
            path = stack.enter_context(serving_locally(api.app, tmp_path))
            yield stack.enter_context(ApiClient.of_socket(path, token))
        else:
            https = https_here(tmp_path)
            monkeypatch.setenv("SSL_CERT_FILE", str(https.certificate))
            port = stack.enter_context(serving_https(api.app, https))
            url = f"https://localhost:{port}"
            yield stack.enter_context(ApiClient.of_url(url, token))
        go_on.set()


def test_answers_errors_and_pages_are_the_same(client: ApiClient) -> None:
    assert client.get("/me")["name"] == "operator"
    with pytest.raises(errors.Forbidden, match="manage-users"):
        client.get("/users")
    with pytest.raises(errors.Invalid):
        client.post("/tokens", {"colour": "red"})
    for number in range(3):
        client.post("/tokens", {"name": f"number {number}"})
    names = {one["name"] for one in client.pages("/tokens")}
    assert names == {"number 0", "number 1", "number 2"}


def test_events_come_while_the_stream_goes_on(client: ApiClient) -> None:
    stream = client.events("/counting")
    assert next(stream).json() == {"number": 1}
    go_on.set()
    assert [(event.event, event.id) for event in stream] == [("count", "2")]


def test_a_stream_that_never_ends_can_be_left(client: ApiClient) -> None:
    stream = client.events("/endless")
    assert [next(stream).json()["number"] for _ in range(3)] == [1, 2, 3]
    stream.close()
    assert client.get("/me")["name"] == "operator"


def test_many_ask_at_once(client: ApiClient) -> None:
    found: list[str] = []

    def ask() -> None:
        found.extend(client.get("/me")["name"] for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["operator"] * 40


def test_the_owner_needs_no_token_on_the_local_socket_and_others_do(
    api: Api, tmp_path: Path
) -> None:
    with serving_locally(api.app, tmp_path) as path, ApiClient.of_socket(path) as client:
        assert client.get("/me")["way"] == "local"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()
    others = make_app(api.master, owners=frozenset({os.geteuid() + 1}))
    with (
        serving_locally(others, tmp_path) as path,
        ApiClient.of_socket(path) as client,
        pytest.raises(errors.NotAuthenticated),
    ):
        client.get("/me")


def test_nobody_is_local_over_the_network_whatever_is_said(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    https = https_here(tmp_path)
    with serving_https(api.app, https) as port:
        context = ssl.create_default_context(cafile=https.certificate)
        with httpx.Client(verify=context, base_url=f"https://localhost:{port}") as http:
            for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Peer"):
                answer = http.get("/api/v1/me", headers={header: "127.0.0.1"})
                assert answer.status_code == 401
                assert "server" not in answer.headers


def test_a_home_is_served_once(api: Api, tmp_path: Path) -> None:
    with serving_locally(api.app, tmp_path) as path:
        with pytest.raises(errors.Busy, match="already"), serving_locally(api.app, tmp_path):
            pass
        assert local_socket.answers(path)


def test_of_many_that_begin_to_serve_at_once_one_does(api: Api, tmp_path: Path) -> None:
    begun: list[bool] = []
    together = threading.Barrier(6)

    def begin() -> None:
        together.wait()
        try:
            with local_socket.listening(tmp_path / local_socket.NAME):
                begun.append(True)
                together.wait()
        except errors.Busy:
            begun.append(False)
            together.wait()

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == [False] * 5 + [True]


def test_a_socket_that_a_dead_process_left_is_no_obstacle(api: Api, tmp_path: Path) -> None:
    path = tmp_path / local_socket.NAME
    path.parent.mkdir()
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    assert not local_socket.answers(path)
    with serving_locally(api.app, tmp_path), ApiClient.of_socket(path) as client:
        assert client.get("/me")["way"] == "local"


def test_a_home_of_a_long_name_can_be_served(api: Api, tmp_path: Path) -> None:
    home = tmp_path / ("a long name " * 12)
    home.mkdir()
    with serving_locally(api.app, home) as path, ApiClient.of_socket(path) as client:
        assert client.get("/me")["way"] == "local"


def test_a_certificate_that_is_none_is_told_so(api: Api, tmp_path: Path) -> None:
    https = https_here(tmp_path)
    https.key.write_text("not a key")
    with pytest.raises(errors.Invalid, match="certificate"), serving_https(api.app, https):
        pass
    https.key.unlink()
    with pytest.raises(errors.Invalid, match="certificate"), serving_https(api.app, https):
        pass


def test_a_port_that_is_taken_and_an_address_of_others_are_told_so(
    api: Api, tmp_path: Path
) -> None:
    https = https_here(tmp_path)
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        again = Https("localhost", port, https.certificate, https.key)
        with pytest.raises(errors.StorageError, match=str(port)), serving_https(api.app, again):
            pass
    other = Https("203.0.113.1", 0, https.certificate, https.key)
    with pytest.raises(errors.StorageError, match=r"203\.0\.113\.1"), serving_https(api.app, other):
        pass
