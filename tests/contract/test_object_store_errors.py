"""What an object store says when the service refuses, is not there, or loses an answer."""

from __future__ import annotations

import errno
from datetime import timedelta
from typing import Any

import pytest
from obstore.store import MemoryStore

from holdfast.vault.backends.object import ObjectStore
from tests.kit.s3_server import ACCESS_KEY, SECRET_KEY


def test_wrong_credentials_are_a_matter_of_permission_and_are_not_printed(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    store = ObjectStore.from_url(s3_bucket)
    for refused in (
        lambda: store.get("pool"),
        lambda: store.put("pool", b"x"),
        lambda: store.put_if_absent("pool", b"x"),
        lambda: list(store.list("images/")),
        lambda: store.delete("pool"),
    ):
        with pytest.raises(PermissionError) as caught:
            refused()
        text = str(caught.value)
        assert "bucket-" in text
        assert "SignatureDoesNotMatch" in text
        assert ACCESS_KEY not in text
        assert "not-the-secret" not in text
        assert "Debug" not in text


def test_a_missing_bucket_is_not_taken_for_a_missing_object(s3_bucket: str) -> None:
    store = ObjectStore.from_url(s3_bucket.replace("s3://", "s3://no-such-"))
    for refused in (lambda: store.get("pool"), lambda: store.put("pool", b"x")):
        with pytest.raises(OSError, match="no such bucket") as caught:
            refused()
        assert not isinstance(caught.value, FileNotFoundError)


def test_a_service_that_does_not_answer_is_named_with_bucket_and_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    store = ObjectStore.from_url(
        "s3://some-bucket/deep?endpoint=http://127.0.0.1:1&region=us-east-1",
        retry={"max_retries": 1, "backoff": {"init_backoff": timedelta(milliseconds=1)}},
    )
    with pytest.raises(OSError, match="'images/one' in 's3://some-bucket/deep'") as caught:
        store.get("images/one")
    assert caught.value.errno == errno.EIO


class LosesAnswers:
    """Puts like a memory store, then fails as a lost connection does, a few times."""

    def __init__(self, inner: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        import obstore

        real = obstore.put
        self.losses = 1
        self.before = False

        def put(store: Any, key: str, data: bytes, **options: Any) -> object:
            if store is not self:
                return real(store, key, data, **options)
            if self.losses and self.before:
                self.losses -= 1
                raise obstore.exceptions.GenericError("connection reset before the request")
            result = real(inner, key, data, **options)
            if self.losses:
                self.losses -= 1
                raise obstore.exceptions.GenericError("connection reset by peer")
            return result

        monkeypatch.setattr(obstore, "put", put)
        monkeypatch.setattr("holdfast.vault.backends.object._CREATE_BACKOFF_S", 0.0)


def test_a_created_object_whose_answer_was_lost_counts_as_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = MemoryStore()
    lossy: Any = LosesAnswers(memory, monkeypatch)
    store = ObjectStore(memory, "memory://test", creator=lossy)
    assert store.put_if_absent("images/one", b"mine") is True
    assert store.get("images/one") == b"mine"


def test_a_lost_answer_does_not_hide_that_another_was_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = MemoryStore()
    lossy: Any = LosesAnswers(memory, monkeypatch)
    lossy.before = True
    store = ObjectStore(memory, "memory://test", creator=lossy)
    store.put("images/one", b"theirs")
    assert store.put_if_absent("images/one", b"mine") is False
    assert store.get("images/one") == b"theirs"


def test_a_create_request_that_never_arrived_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = MemoryStore()
    lossy: Any = LosesAnswers(memory, monkeypatch)
    lossy.before, lossy.losses = True, 3
    store = ObjectStore(memory, "memory://test", creator=lossy)
    assert store.put_if_absent("images/one", b"mine") is True
    assert store.get("images/one") == b"mine"


def test_a_create_request_that_never_arrives_fails_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = MemoryStore()
    lossy: Any = LosesAnswers(memory, monkeypatch)
    lossy.before, lossy.losses = True, 1000
    store = ObjectStore(memory, "memory://test", creator=lossy)
    with pytest.raises(OSError, match="connection reset"):
        store.put_if_absent("images/one", b"mine")
    assert store.size("images/one") is None


def test_the_secret_key_is_never_in_an_object_stores_name(s3_bucket: str) -> None:
    store = ObjectStore.from_url(s3_bucket)
    assert SECRET_KEY not in repr(store)
    assert "endpoint" not in store.place
