"""An object store (S3 and its like, Google Cloud Storage, Azure) as a pool's store.

Must not interpret what it stores. Retries are obstore's own, but for one case that only this
module can judge: a conditional put whose answer was lost. Invariants: every error names the
place and the key and carries no credentials; of racing `put_if_absent` calls exactly one wins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import MemoryStore, from_url

from holdfast.base.errors import Invalid
from holdfast.vault.backends.names import checked_key, checked_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Backend
else:
    Backend: TypeAlias = Any

_PAGE = 1000
_MULTIPART_ABOVE = 32 << 20
_MULTIPART_PART = 16 << 20
_MULTIPART_STREAMS = 4
_CREATE_TRIES = 5
_CREATE_BACKOFF_S = 0.2

_QUERY = {
    "s3": frozenset({"endpoint", "region"}),
    "s3a": frozenset({"endpoint", "region"}),
}
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageFull"})
_REFUSED = re.compile(r"status code: 40[13]\b")
# Amazon's machine credentials: what obstore asks for last, when it was given none.
_NO_CREDENTIALS = "/latest/api/token"

_memory: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


class ObjectStore:
    """Objects in a bucket, below a prefix. Thread-safe; durable as far as the service promises.

    Attributes:
        place: The URL without query, for messages.
    """

    def __init__(self, backend: Backend, place: str, *, creator: Backend | None = None) -> None:
        """Wrap a store of obstore.

        Args:
            backend: Does everything but conditional puts; may retry.
            place: What messages call it; no credentials.
            creator: The same bucket and prefix through a client that never retries; used for
                conditional puts. None where a request can't get lost (memory, local disk).
        """
        self._backend = backend
        self._creator = creator
        self.place = place

    @classmethod
    def from_url(cls, url: str, *, retry: RetryConfig | None = None) -> ObjectStore:
        """Open ``s3://bucket/prefix``, ``gs://…``, ``az://…`` or ``memory://name``.

        S3 takes ``?endpoint=https://host:port&region=name`` for services other than Amazon's.
        Credentials come from the environment or the machine, as the service's own tools do it.
        A ``memory://`` store lives as long as the process and is the same for the same name.

        Args:
            url: See above; a trailing slash makes no difference.
            retry: How long to retry passing errors; obstore's own configuration if None.

        Raises:
            Invalid: The URL is of no known kind, or carries credentials or unknown options.
        """
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise Invalid(
                f"the URL of the {parts.scheme} store carries credentials",
                "leave them out; set them in the environment (AWS_ACCESS_KEY_ID, …)",
            )
        place = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        if parts.scheme == "memory":
            with _memory_lock:
                return cls(_memory.setdefault(place, MemoryStore()), place)
        config = _config(parts.scheme, parts.query, place)
        options = _client_options(config)

        def client(retry: RetryConfig | None) -> Backend:
            # The overloads need a kind of store that is known only when the URL is.
            opener: Callable[..., Backend] = from_url
            return opener(place, config=config, client_options=options, retry_config=retry)

        try:
            return cls(client(retry), place, creator=client({"max_retries": 0}))
        except (BaseError, ValueError) as error:
            raise Invalid(f"'{place}' can't be used as a store: {_gist(error)}") from error

    def __repr__(self) -> str:
        return f"ObjectStore({self.place!r})"

    def __str__(self) -> str:
        return self.place

    def get(self, key: str) -> bytes:
        """Read a whole object.

        Raises:
            FileNotFoundError: There is none of this key.
            PermissionError: The credentials don't allow it.
            OSError: The service failed, after retries; safe to try again later.
        """
        with self._translated("read", checked_key(key)):
            return obstore.get(self._backend, key).bytes().to_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes from `offset`.

        Raises:
            FileNotFoundError: There is no object of this key.
            PermissionError: The credentials don't allow it.
            OSError: The service failed, after retries; with ``EBADMSG``: the object is too short.
        """
        if length == 0:  # object stores have no empty ranges
            return b""
        try:
            with self._translated("read", checked_key(key)):
                data = obstore.get_range(self._backend, key, start=offset, length=length)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            # A range that begins past the end is refused, each service in words of its own.
            size = self.size(key)
            if size is None or size >= offset + length:
                raise
            raise self._too_short(key, offset, length, size) from error
        if len(data) != length:
            raise self._too_short(key, offset, length, offset + len(data))
        return data.to_bytes()

    def put(self, key: str, data: bytes) -> None:
        """Write an object, over one of the same key if there is one. Atomic; durable on return.

        Raises:
            PermissionError: The credentials don't allow it.
            OSError: The service failed, after retries; safe to try again later.
        """
        with self._translated("write", checked_key(key)):
            obstore.put(
                self._backend,
                key,
                data,
                use_multipart=len(data) > _MULTIPART_ABOVE,
                chunk_size=_MULTIPART_PART,
                max_concurrency=_MULTIPART_STREAMS,
            )

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless one of this key is there. Atomic; durable on return.

        A retry inside a client would meet the object that its own lost first try has written,
        and take it for another's. So nothing below retries; after an error the object itself
        tells whose it is. That needs data that no two writers share, which sealed objects are.

        Returns:
            False, and nothing changed, when the key was taken. Of racing writers one gets True.

        Raises:
            PermissionError: The credentials don't allow it.
            OSError: The service failed, again and again; safe to try again later.
        """
        backend = self._backend if self._creator is None else self._creator
        for remaining in reversed(range(_CREATE_TRIES)):
            try:
                with self._translated("create", checked_key(key)):
                    obstore.put(backend, key, data, mode="create", use_multipart=False)
            except FileExistsError:
                return False
            except (PermissionError, FileNotFoundError):
                raise
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    return self.get(key) == data
                if remaining == 0:
                    raise
                time.sleep(_CREATE_BACKOFF_S * 2 ** (_CREATE_TRIES - 1 - remaining))
            else:
                return True
        raise AssertionError("unreachable")

    def size(self, key: str) -> int | None:
        """Tell an object's size in bytes, or None when there is none of this key.

        Raises:
            PermissionError: The credentials don't allow it.
            OSError: The service failed, after retries; safe to try again later.
        """
        try:
            with self._translated("look up", checked_key(key)):
                return obstore.head(self._backend, key)["size"]
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[list[tuple[str, int]]]:
        """Yield pages of (key, size in bytes) of the objects under a prefix.

        A prefix ends with '/'; the empty one is for all objects.

        Objects put or deleted while the pages are taken may or may not be in them.

        Raises:
            PermissionError: The credentials don't allow it.
            OSError: The service failed, after retries; safe to retry from the beginning.
        """
        top = checked_prefix(prefix) or None
        with self._translated("list", prefix):
            pages = iter(obstore.list(self._backend, top, chunk_size=_PAGE))
        while True:
            with self._translated("list", prefix):
                page = next(pages, None)
            if page is None:
                return
            yield [(found["path"], found["size"]) for found in page]

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine.

        Raises:
            PermissionError: The credentials don't allow it.
            OSError: The service failed, after retries; safe to try again later.
        """
        with (
            contextlib.suppress(FileNotFoundError),
            self._translated("delete", checked_key(key)),
        ):
            obstore.delete(self._backend, key)

    def _too_short(self, key: str, offset: int, length: int, size: int) -> OSError:
        return OSError(
            errno.EBADMSG,
            f"'{key}' in '{self.place}' is too short: it has {size} bytes, "
            f"wanted were {length} at {offset}",
        )

    @contextlib.contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        """Turn obstore's errors into those of the operating system, in words for a person."""
        what = f"can't {verb} '{key}' in '{self.place}'"
        try:
            yield
        except (AlreadyExistsError, PreconditionError) as error:
            raise FileExistsError(errno.EEXIST, f"{what}: it exists already") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PermissionError(errno.EACCES, f"{what}: {_gist(error)}") from error
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise OSError(errno.EIO, f"{what}: there is no such bucket") from error
            raise FileNotFoundError(errno.ENOENT, f"{what}: it is not there") from error
        except (BaseError, ValueError, OSError) as error:
            gist = _gist(error)
            if _REFUSED.search(str(error)):  # obstore tells this from others only for single keys
                raise PermissionError(errno.EACCES, f"{what}: {gist}") from error
            full = any(code in gist for code in _FULL)
            raise OSError(errno.ENOSPC if full else errno.EIO, f"{what}: {gist}") from error


def _config(scheme: str, query: str, place: str) -> dict[str, str | bool]:
    """Read a URL's options."""
    known = _QUERY.get(scheme, frozenset())
    config: dict[str, str | bool] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known or not value:
            raise Invalid(
                f"'{name}={value}' is no option of '{place}'",
                f"{scheme} URLs take " + (", ".join(sorted(known)) or "no options"),
            )
        config[name] = value
    if known:
        # One object is deleted at a time, and the bulk verb is the one that services lack.
        config["disable_bulk_delete"] = True
    return config


def _client_options(config: dict[str, str | bool]) -> ClientConfig:
    endpoint = config.get("endpoint") or os.environ.get(
        "AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", "")
    )
    return {
        "allow_http": str(endpoint).startswith("http://"),
        "connect_timeout": "10s",
        # One request carries up to 32 MiB; slower than 1 Mbit/s counts as broken.
        "timeout": "300s",
    }


def _gist(error: BaseException) -> str:
    """Cut an error of obstore to what a person needs: no XML, no debug dump."""
    text = str(error).split("\n\nDebug source")[0]
    if _NO_CREDENTIALS in text:
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    code = re.search(r"<Code>([^<]{1,100})</Code>", text)
    message = re.search(r"<Message>([^<]{1,300})</Message>", text)
    if code is not None:
        return f"{code[1]}: {message[1]}" if message is not None else code[1]
    return " ".join(text.split("<?xml")[0].split())[:300]
