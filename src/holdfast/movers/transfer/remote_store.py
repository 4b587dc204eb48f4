"""The store of a pool that a media server owns, for the engine of the master server.

Must not look into objects. Invariants: what is read of an object is of one version of it; a change
is made once, however often it has to be said, and never after a later one of the same key; a call
ends with what the media server said, or when it could not be reached for `deadline_s`.

A change whose answer was lost is said again under its number, and a media server that knows the
number tells what it told then. One that was started anew meanwhile does not: for a put-if-absent
that finds its key taken the object itself tells whose it is, as no two writers ever put the same
sealed bytes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from holdfast.base.errors import (
    AccessError,
    Busy,
    HoldfastError,
    InputOutput,
    IntegrityError,
    InternalError,
    Invalid,
    NoPermission,
    NoSpace,
    ObjectMissing,
    Unreachable,
    WrongState,
)
from holdfast.movers.transfer.answers import AGAIN
from holdfast.movers.transfer.connection import Connection, Request, Response
from holdfast.movers.transfer.rate import RateLimit
from holdfast.vault.backends.names import checked_key, checked_prefix
from holdfast.wire.problem import error_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

PREFIX = "/v1/store"
SIZE_HEADER, VERSION_HEADER = "holdfast-size", "holdfast-version"

DEADLINE_S = 60.0
FIRST_S = 8.0
"""Whoever did not answer yet is given up sooner: most likely it is not there."""

CONNECTIONS = 24
"""At once; the media server's disk is not quicker for more."""

READ_BYTES = 16 << 20
IDLE_S = 30.0
"""A connection that nobody used for so long may have been given up by the other end."""

_FAILURES_TRIED = 3
_CHANGED_TRIED = 5
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0


class RemoteStore:
    """A `holdfast.engine.Store` on a media server. Thread-safe; close it in the end.

    Attributes:
        place: What messages call it.
    """

    def __init__(
        self,
        urls: Sequence[str],
        context: ssl.SSLContext,
        check_peer: Callable[[bytes], None],
        pool: str,
        *,
        deadline_s: float = DEADLINE_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            urls: Where the media server is reached; each is tried in turn.
            context: Has the master's certificate and the site's authority.
            check_peer: Is given the other end's certificate in DER; raises if that is not a media
                server of the site.
            pool: The id of the pool, 32 digits.
            deadline_s: For how long one call tries to reach the media server; the first ones try
                for `FIRST_S`, until one was answered.
            now_s: A clock that only goes forward.

        Raises:
            Invalid: These are no URLs.
        """
        self._addresses = [_address(url) for url in urls]
        if not self._addresses:
            raise Invalid("a media server without any URL can't be reached")
        self.place = f"{urls[0]}, pool {pool}"
        self._context = context
        self._check_peer = check_peer
        self._path = f"{PREFIX}/{pool}"
        self._deadline_s = deadline_s
        self._answered = False
        self._now_s = now_s
        self._writer = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._turn = threading.BoundedSemaphore(CONNECTIONS)
        self._first = 0
        self._seq = 0
        self._idle: list[tuple[float, Connection]] = []
        self._changing: dict[str, tuple[threading.Lock, int]] = {}
        self._closing = weakref.finalize(self, _close, self._idle)

    def __str__(self) -> str:
        return self.place

    def __repr__(self) -> str:
        return f"RemoteStore({self.place!r})"

    def close(self) -> None:
        """Close all connections that nothing is on."""
        with self._lock:
            _close(self._idle)

    # -- reading ----------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        """Read a whole object.

        Raises:
            FileNotFoundError: There is none of this key.
            PermissionError: The media server does not take this master.
            OSError: It can't be reached, or its disk fails; safe to try again.
        """
        checked_key(key)
        for _ in range(_CHANGED_TRIED):
            first = self._object("read", key)
            whole = self._whole(key, first)
            if len(first.body) == whole:
                return first.body
            found = self._rest(key, first, len(first.body), whole)
            if found is not None:
                return first.body + found
        raise OSError(errno.EIO, self._words("read", key, "it changes all the time"))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes from `offset`.

        Raises:
            FileNotFoundError: There is no object of this key.
            PermissionError: The media server does not take this master.
            OSError: As for `get`; with ``EBADMSG``: the object is too short.
        """
        checked_key(key)
        for _ in range(_CHANGED_TRIED):
            size_bytes = min(length, READ_BYTES)
            first = self._object("read", key, offset=offset, length=size_bytes)
            self._require(key, first, size_bytes)
            if size_bytes == length:
                return first.body
            found = self._rest(key, first, offset + size_bytes, offset + length)
            if found is not None:
                return first.body + found
        raise OSError(errno.EIO, self._words("read", key, "it changes all the time"))

    def _rest(self, key: str, first: Response, at: int, end: int) -> bytes | None:
        """The bytes up to a place, of the same object; None if another was put in its place."""
        found = bytearray()
        while at < end:
            length = min(READ_BYTES, end - at)
            version = first.headers.get(VERSION_HEADER, "")
            try:
                part = self._object("read", key, offset=at, length=length, version=version)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    return None
                raise
            self._require(key, part, length)
            found += part.body
            at += length
        return bytes(found)

    def _whole(self, key: str, answer: Response) -> int:
        text = answer.headers.get(SIZE_HEADER, "")
        if not text.isascii() or not text.isdigit() or int(text) < len(answer.body):
            raise self._misunderstood("read", key)
        return int(text)

    def _require(self, key: str, answer: Response, length: int) -> None:
        if len(answer.body) != length:
            raise self._misunderstood("read", key)

    def _misunderstood(self, verb: str, key: str) -> OSError:
        why = "the media server does not answer as Holdfast does"
        return OSError(errno.EIO, self._words(verb, key, why))

    def size(self, key: str) -> int | None:
        """Tell an object's size in bytes, or None when there is none of this key.

        Raises:
            PermissionError, OSError: As for `get`.
        """
        said = self._said("look up", key, "/size", {"key": checked_key(key)})
        found = said.get("size", -1)
        if found is not None and (not isinstance(found, int) or found < 0):
            raise self._misunderstood("look up", key)
        return found

    def list(self, prefix: str) -> Iterator[list[tuple[str, int]]]:
        """Yield pages of (key, size in bytes) of the objects under a prefix.

        A prefix ends with '/'; the empty one is for all objects.

        Objects put or deleted while the pages are taken may or may not be in them.

        Raises:
            PermissionError, OSError: As for `get`; safe to try again from the beginning.
        """
        checked_prefix(prefix)
        asked = {"prefix": prefix}
        while True:
            said = self._said("list", prefix, "/list", asked)
            try:
                page = [(str(key), int(size)) for key, size in said["objects"]]
            except (KeyError, TypeError, ValueError) as error:
                raise self._misunderstood("list", prefix) from error
            if page:
                yield page
                asked = {"prefix": prefix, "after": page[-1][0]}
            if not page or not said.get("more"):
                return

    def _object(self, verb: str, key: str, **more: int | str) -> Response:
        return self._call(verb, key, "GET", "/object", {"key": key, **more})

    def _said(self, verb: str, key: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        return self._json(verb, key, self._call(verb, key, "GET", path, asked))

    def _json(self, verb: str, key: str, answer: Response) -> dict[str, Any]:
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise self._misunderstood(verb, key) from error
        if not isinstance(found, dict):
            raise self._misunderstood(verb, key)
        return found

    # -- changing ---------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        """Write an object, over one of the same key if there is one. Atomic; durable on return.

        Raises:
            PermissionError: The media server does not take this master.
            OSError: It can't be reached, its disk fails or, with ``ENOSPC``, is full. The object
                may be there all the same; safe to try again.
        """
        self._change("write", checked_key(key), "PUT", {}, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless one of this key is there. Atomic; durable on return.

        Returns:
            False, and nothing changed, when the key was taken. Of racing writers one gets True,
            also where an answer was lost.

        Raises:
            PermissionError, OSError: As for `put`.
        """
        answer = self._change("create", checked_key(key), "PUT", {"absent": 1}, data)
        return self._json("create", key, answer).get("made") is True

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine. Durable on return.

        Raises:
            PermissionError, OSError: As for `put`.
        """
        self._change("delete", checked_key(key), "DELETE", {}, None)

    def _change(
        self, verb: str, key: str, method: str, asked: dict[str, Any], body: bytes | None
    ) -> Response:
        with self._only_change(key):
            with self._lock:
                self._seq += 1
                numbered = {"key": key, "writer": self._writer, "seq": self._seq, **asked}
            return self._call(verb, key, method, "/object", numbered, body)

    @contextlib.contextmanager
    def _only_change(self, key: str) -> Iterator[None]:
        """Keep changes of one key apart, so that they are numbered in the order of their making."""
        with self._lock:
            lock, users = self._changing.get(key, (threading.Lock(), 0))
            self._changing[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._changing.pop(key)
                if users > 1:
                    self._changing[key] = lock, users - 1

    # -- over the wire ----------------------------------------------------------------------

    def _call(
        self,
        verb: str,
        key: str,
        method: str,
        path: str,
        asked: dict[str, Any],
        body: bytes | None = None,
    ) -> Response:
        """Ask until there is an answer that counts.

        Raises:
            OSError: See the methods.
        """
        began_s = self._now_s()
        pause_s = 0.0
        failures, again = 0, False
        while True:
            query = {**asked, "again": 1} if again else asked
            request = Request(method, f"{self._path}{path}?{urlencode(query)}", body)
            try:
                answer = self._exchange(request)
            except HoldfastError as error:
                # Somebody else answers at that address, and was told nothing.
                failures += 1
                trouble = self._error(verb, key, error)
            except OSError as error:
                why = error.strerror or str(error) or type(error).__name__
                what = f"the media server can't be reached: {why}"
                trouble = OSError(errno.EHOSTUNREACH, self._words(verb, key, what))
            else:
                if answer.status < 300:
                    return answer
                said = error_of(answer.status, answer.body)
                failures += isinstance(said, InternalError | InputOutput)
                trouble = self._error(verb, key, said)
                if answer.status not in AGAIN:
                    raise trouble
            # Whatever failed may have been done.
            again = method == "PUT"
            patience_s = self._deadline_s if self._answered else min(FIRST_S, self._deadline_s)
            if failures >= _FAILURES_TRIED or self._now_s() + pause_s - began_s >= patience_s:
                raise trouble
            time.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2 + _PAUSE_S)

    def _exchange(self, request: Request) -> Response:
        """Ask once, over a connection that is there or a new one.

        Raises:
            HoldfastError: What answers is not the media server.
            OSError: The connection is gone; the request may have been done, or not.
        """
        with self._turn:
            connection = self._taken() or self._connected()
            try:
                answer = connection.exchange(request, None)
            except BaseException:
                connection.close()
                # What was open beside it most likely shares its fate.
                self.close()
                raise
            self._answered = True
            if not connection.usable:
                connection.close()
            else:
                with self._lock:
                    self._idle.append((self._now_s(), connection))
            return answer

    def _taken(self) -> Connection | None:
        """The connection that was used last, if there is one; those that are too old are closed."""
        with self._lock:
            while self._idle:
                since_s, connection = self._idle.pop()
                if self._now_s() - since_s < IDLE_S:
                    return connection
                connection.close()
        return None

    def _connected(self) -> Connection:
        first = self._first
        address = self._addresses[first % len(self._addresses)]
        try:
            return Connection(address, None, self._context, RateLimit(), self._check_peer)
        except BaseException:
            # The next one is tried instead, unless another thread has moved on already.
            if self._first == first:
                self._first = first + 1
            raise

    def _error(self, verb: str, key: str, error: HoldfastError) -> OSError:
        words = self._words(verb, key, error.message)
        match error:
            case ObjectMissing():
                return FileNotFoundError(errno.ENOENT, words)
            case IntegrityError():
                return OSError(errno.EBADMSG, words)
            case NoSpace():
                return OSError(errno.ENOSPC, words)
            case AccessError() | NoPermission():
                return PermissionError(errno.EACCES, words)
            case Unreachable() | Busy():
                return OSError(errno.EHOSTUNREACH, words)
            case WrongState():
                return OSError(errno.ESTALE, words)
            case _:
                return OSError(errno.EIO, words)

    def _words(self, verb: str, key: str, why: str) -> str:
        return f"can't {verb} '{key}' in '{self.place}': {why}"


def _close(idle: list[tuple[float, Connection]]) -> None:
    while idle:
        idle.pop()[1].close()


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid(f"'{url[:80]}' is no URL of a media server") from error
    if parts.scheme != "https" or not host or port is None:
        raise Invalid(f"'{url[:80]}' is no URL of a media server", "it is https://address:port")
    return host, port
