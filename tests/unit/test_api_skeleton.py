"""What holds for every route of the API: problems, limits, cursors, the document."""

from __future__ import annotations

import json
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI

from holdfast.base import errors
from holdfast.control.access import Principal, Role, Verb
from holdfast.faces.api import limits
from holdfast.faces.api.door import TheNote, make_router, may
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages, Paging
from holdfast.faces.api.problems import problem
from holdfast.faces.api.statuses import status_of
from holdfast.faces.cli.api_client import ApiClient, at
from tests.kit.api import Api

router = make_router("Things")

JSON = {"Content-Type": "application/json"}

raised: list[Exception] = []
done: list[str] = []


class Thing(Model):
    name: str
    size: int = 0


@router.get("/things")
def list_things(
    _: Annotated[Principal, may(Verb.SEE)], pages: Pages, size: int = 25
) -> Page[Thing]:
    after = pages.after(str)
    names = sorted(str(number) for number in range(size))
    rows = [name for name in names if after is None or name > str(after[0])][: pages.fetch]
    return pages.page(rows, key=lambda name: (name,), show=lambda name: Thing(name=name))


@router.post("/things", status_code=201)
def make_thing(
    _: Annotated[Principal, may(Verb.RUN_POLICIES)], body: Thing, note: TheNote
) -> Thing:
    if raised:
        raise raised[0]
    done.append(body.name)
    note.details["made"] = body.name
    return Thing(name=body.name, size=len(done))


@router.post("/secrets", status_code=201)
def make_secret(_: Annotated[Principal, may(Verb.RUN_POLICIES, secret=True)]) -> Thing:
    done.append("secret")
    return Thing(name="hf_secret")


@pytest.fixture
def things(api: Api) -> Api:
    """The API with some routes more, that do as they are told."""
    raised.clear()
    done.clear()
    assert isinstance(api.app, FastAPI)
    api.app.include_router(router, prefix="/api/v1")
    return api


def test_every_error_has_a_status_and_the_form_of_a_problem() -> None:
    for kind in errors.BY_CODE.values():
        error = kind("it is so", "do that")
        answer = problem(error)
        body = json.loads(bytes(answer.body))
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["status"] == answer.status_code == status_of(error)
        assert (body["code"], body["detail"], body["hint"]) == (kind.code, "it is so", "do that")
        assert body["type"] == f"urn:holdfast:error:{kind.code}"
        again = errors.from_code(body["code"], body["detail"], body["hint"])
        assert type(again) is kind


@pytest.mark.parametrize("error", [errors.Busy("it is"), errors.NotFound("no thing '7'")])
def test_an_error_comes_through_as_the_error_that_it_was(
    things: Api, error: errors.HoldfastError
) -> None:
    raised.append(error)
    with pytest.raises(type(error)) as caught:
        things.client().post("/things", {"name": "one"})
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)


def test_what_is_not_there_and_what_is_not_allowed_are_problems(api: Api) -> None:
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/api/v1/nothing", 404, "not-found"),
        ("DELETE", "/health", 405, "usage"),
    ):
        answer = api.http().request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == code
        assert "openapi.json" in answer.json()["hint"]
    assert api.http().delete("/health").headers["allow"] == "GET"


def test_all_that_is_wrong_with_a_request_is_told_at_once_without_its_values(things: Api) -> None:
    http = things.http(things.token(Role.OPERATOR))
    answer = http.post("/api/v1/things", json={"size": "hunter2", "colour": "red"})
    assert answer.status_code == 422
    body = answer.json()
    assert {fault["where"] for fault in body["errors"]} == {"body.name", "body.size", "body.colour"}
    assert "hunter2" not in answer.text
    assert "(and 2 more)" in body["detail"]
    assert http.post("/api/v1/things", content=b"{", headers=JSON).status_code == 422


def test_a_defect_tells_nothing_but_a_reference(things: Api) -> None:
    raised.append(RuntimeError("the secret of the house"))

    async def swallow(scope: Any, receive: Any, send: Any) -> None:
        try:
            await things.app(scope, receive, send)
        except RuntimeError as error:
            notes.extend(error.__notes__)

    notes: list[str] = []
    with (
        ApiClient.of_application(swallow) as client,
        pytest.raises(errors.InternalError) as caught,
    ):
        client.post("/things", {"name": "one"})
    (note,) = notes
    assert note.removeprefix("reference ") in caught.value.message
    assert "secret" not in caught.value.message


def test_in_the_same_process_a_defect_is_raised_as_it_is(things: Api) -> None:
    raised.append(RuntimeError("the secret of the house"))
    with pytest.raises(RuntimeError, match="house"):
        things.client().post("/things", {"name": "one"})


def test_a_body_that_is_too_large_is_refused_whatever_it_says_of_itself(things: Api) -> None:
    http = things.http(things.token(Role.OPERATOR))
    large = b" " * (limits.MAX_BODY_BYTES + 1)
    stated = http.post("/api/v1/things", content=large, headers=JSON)
    assert (stated.status_code, stated.json()["code"]) == (413, "too-large")
    lying = http.post("/api/v1/things", content=large, headers={**JSON, "Content-Length": "10"})
    assert (lying.status_code, lying.json()["code"]) == (413, "too-large")
    assert done == []


def test_pages_follow_each_other_to_the_end(things: Api) -> None:
    client = things.client()
    names = [item["name"] for item in client.pages("/things", size=2500)]
    assert names == sorted(str(number) for number in range(2500))
    assert len(list(client.pages("/things", size=2500, limit=1500))) == 1500
    assert [item["name"] for item in client.pages("/things", size=3, limit=2)] == ["0", "1"]


def test_a_cursor_is_of_one_list_and_its_filters(things: Api) -> None:
    client = things.client()
    cursor = client.get("/things", size=30, limit=3)["next_cursor"]
    assert client.get("/things", size=30, limit=3, cursor=cursor)["items"][0]["name"] == "11"
    broken = cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")
    for size, bad in ((31, cursor), (30, broken), (30, "x" * 40), (30, "AAAA"), (30, "A")):
        with pytest.raises(errors.NotFound, match="cursor"):
            client.get("/things", size=size, limit=3, cursor=bad)
    forger = Paging(1, None, json.dumps(["/api/v1/things", [["size", "30"]]]))
    for forged in ((2**63,), ("a\0b",), (1,), (True,), (1.5,), ("a", "b"), ()):
        written = forger._write(forged)  # type: ignore[arg-type]
        with pytest.raises(errors.NotFound, match="cursor"):
            client.get("/things", size=30, limit=3, cursor=written)
    with pytest.raises(errors.Invalid):
        client.get("/things", cursor="ä")
    with pytest.raises(errors.Invalid):
        client.get("/things", limit=0)


def test_an_act_is_done_once_for_one_key(things: Api) -> None:
    http = things.http(things.token(Role.OPERATOR))
    key = {"Idempotency-Key": "a-key"}
    first = http.post("/api/v1/things", json={"name": "one"}, headers=key)
    second = http.post("/api/v1/things", json={"name": "one"}, headers=key)
    assert first.status_code == second.status_code == 201
    assert first.content == second.content
    assert second.headers["idempotent-replay"] == "true"
    assert done == ["one"]
    other = http.post("/api/v1/things", json={"name": "two"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "key-reused")
    without = http.post("/api/v1/things", json={"name": "one"})
    assert without.json()["size"] == 2


def test_a_key_that_could_not_be_one_is_refused(things: Api) -> None:
    http = things.http(things.token(Role.OPERATOR))
    for key in ("", "x" * 256, "tab\there"):
        answer = http.post("/api/v1/things", json={"name": "x"}, headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), key
    assert done == []


def test_an_act_that_failed_may_be_tried_again_with_its_key(things: Api) -> None:
    http = things.http(things.token(Role.OPERATOR))
    key = {"Idempotency-Key": "k"}
    raised.append(errors.Busy("not now"))
    assert http.post("/api/v1/things", json={"name": "one"}, headers=key).status_code == 409
    raised.clear()
    assert http.post("/api/v1/things", json={"name": "one"}, headers=key).status_code == 201


def test_a_secret_is_kept_for_no_key(things: Api) -> None:
    http = things.http(things.token(Role.OPERATOR))
    key = {"Idempotency-Key": "k"}
    assert http.post("/api/v1/secrets", headers=key).json()["name"] == "hf_secret"
    again = http.post("/api/v1/secrets", headers=key)
    assert (again.status_code, again.json()["code"]) == (409, "already-exists")
    assert done == ["secret"]


def test_a_route_that_does_not_say_who_may_use_it_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="forgotten"):

        @make_router("Things").get("/forgotten")
        def forgotten() -> None:
            """Nobody said who."""


def test_an_unknown_host_is_unreachable_and_not_a_defect() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with (
        ApiClient(httpx.MockTransport(refuse), "http://x", "the other end") as client,
        pytest.raises(errors.Unreachable, match="the other end does not answer: refused"),
    ):
        client.get("/things")


def test_what_is_no_site_is_told_so() -> None:
    def other(_: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="<html>proxy</html>")

    with (
        ApiClient(httpx.MockTransport(other), "http://x", "x") as client,
        pytest.raises(errors.Unreachable, match="502"),
    ):
        client.get("/things")


def test_an_act_is_repeated_with_the_same_key_when_the_connection_breaks() -> None:
    keys = []

    def break_once(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("reset", request=request)
        return httpx.Response(204)

    with ApiClient(httpx.MockTransport(break_once), "http://x", "x") as client:
        client.delete(at("things", "a/b"))
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_events_are_read_as_they_were_sent() -> None:
    text = ': hello\n\nevent: state\nid: 4\ndata: {"a":\ndata: 1}\n\ndata: plain\n\ndata: cut off'

    def stream(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=text)

    with ApiClient(httpx.MockTransport(stream), "http://x", "x") as client:
        first, second = client.events("/things")
    assert (first.event, first.id, first.json()) == ("state", "4", {"a": 1})
    assert (second.event, second.id, second.data) == ("message", "4", "plain")


def test_a_url_that_would_send_a_token_in_the_clear_is_refused() -> None:
    for url in ("http://master.example.org", "ftp://x", "master:8443", "https://", "https://x:y"):
        with pytest.raises(errors.Invalid):
            ApiClient.of_url(url, "hf_x")
    ApiClient.of_url("https://master.example.org:8443/", "hf_x").close()
    ApiClient.of_url("http://127.0.0.1:8080", "hf_x").close()


def test_the_document_names_every_operation_once_and_explains_it(api: Api) -> None:
    document = api.app.openapi()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    for one in operations:
        assert one["description"], one["operationId"]
        assert set(one["tags"]) <= tags, one["operationId"]
        assert "500" in one["responses"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_metrics_count_requests_by_route_and_status(api: Api) -> None:
    api.http().get("/health")
    api.http().get("/metrics")
    text = api.http(api.token(Role.AUDITOR)).get("/metrics").text
    assert 'holdfast_api_requests_total{operation="read_health",status="200"} 1.0' in text
    assert 'holdfast_api_requests_total{operation="read_metrics",status="401"} 1.0' in text
    assert "holdfast_users 1.0" in text
