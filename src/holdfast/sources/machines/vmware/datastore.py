"""Files of a datastore by HTTPS: ranges of them, whole small ones, and new ones.

Must not know what is in them. Invariants: what comes back is exactly the range that was asked for
or an error; a connection is used only after its certificate was judged as the session's.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from holdfast.base.errors import (
    Forbidden,
    HoldfastError,
    InputOutput,
    NoSpace,
    NotAuthenticated,
    NotFound,
    SnapshotBroken,
    TooLarge,
    Unreachable,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from holdfast.sources.machines.vmware.connection import Session

TRIES = 4
_PAUSE_S = 0.5
_TIMEOUT_S = 60.0
_PIECE = 1 << 20
_HINT = "give the user 'Browse datastore' and 'Low level file operations' there"


class Files:
    """Files of one data centre, by one connection. Not thread-safe."""

    def __init__(self, session: Session, data_center: str) -> None:
        """Name the data centre; nobody is asked."""
        self._session = session
        self._data_center = data_center
        self._connection: http.client.HTTPSConnection | None = None

    def size(self, datastore: str, path: str) -> int:
        """Of a file, in bytes.

        Raises:
            HoldfastError: It can't be told, and why.
        """
        answer, _ = self._asked("HEAD", datastore, path, {}, 0)
        return int(answer.getheader("Content-Length") or 0)

    def read(self, datastore: str, path: str, offset: int, length: int) -> bytes:
        """A range of a file.

        Raises:
            HoldfastError: It can't be read, and why.
        """
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        answer, data = self._asked("GET", datastore, path, wanted, length)
        told = (answer.getheader("Content-Range") or "").partition("/")[0]
        if answer.status != 206 or told != f"bytes {offset}-{offset + length - 1}":
            raise InputOutput(
                f"'[{datastore}] {path}' is not answered in ranges: status {answer.status}, "
                f"'{told}'",
                "reach the vCenter or host itself, with no proxy between",
            )
        if len(data) != length:
            raise InputOutput(f"'[{datastore}] {path}' gave {len(data)} bytes of {length}")
        return data

    def whole(self, datastore: str, path: str, most: int) -> bytes:
        """All of a small file.

        Raises:
            TooLarge: It is larger than that.
            HoldfastError: It can't be read, and why.
        """
        _, data = self._asked("GET", datastore, path, {}, most)
        return data

    def put(
        self,
        datastore: str,
        path: str,
        content: IO[bytes] | bytes,
        size: int,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a file, over what is there.

        Raises:
            HoldfastError: It can't be written, and why.
        """
        self.close()
        connection = self._connect()
        try:
            connection.putrequest("PUT", self._url(datastore, path))
            connection.putheader("Cookie", self._session.cookie)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            if isinstance(content, bytes):
                connection.send(content)
            else:
                while piece := content.read(4 * _PIECE):
                    alive()
                    connection.send(piece)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"'[{datastore}] {path}' could not be written: {_said(error)}",
                "see that the vCenter runs, and that its datastore has room",
            ) from error
        finally:
            self.close()
        self._judge(answer, datastore, path, "written")

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _asked(
        self, method: str, datastore: str, path: str, headers: dict[str, str], most: int
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask again where the connection was lost, or the host is busy."""
        for left in reversed(range(TRIES)):
            try:
                answer, data = self._once(method, datastore, path, headers, most)
            except ssl.SSLCertVerificationError as error:
                raise Unreachable(
                    f"the certificate of '{self._session.place}' is not believed any more: "
                    f"{error.verify_message}"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not left:
                    raise Unreachable(
                        f"'{self._session.place}' could not be read from: {_said(error)}",
                        "see that it runs, and that the network between lets HTTPS through",
                    ) from error
            else:
                if answer.status < 500 or not left:
                    self._judge(answer, datastore, path, "read")
                    return answer, data
            time.sleep(_PAUSE_S * 2 ** (TRIES - 1 - left))
        raise AssertionError  # the last try returns or raises

    def _once(
        self, method: str, datastore: str, path: str, headers: dict[str, str], most: int
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._connection or self._connect()
        given = {"Cookie": self._session.cookie, "Accept-Encoding": "identity", **headers}
        connection.request(method, self._url(datastore, path), headers=given)
        answer = connection.getresponse()
        told = int(answer.getheader("Content-Length") or 0)
        if method == "GET" and answer.status < 300 and told > most:
            self.close()
            raise TooLarge(f"'[{datastore}] {path}' gives {told} bytes, where at most {most} fit")
        return answer, answer.read()

    def _connect(self) -> http.client.HTTPSConnection:
        place = self._session.place
        self._connection = http.client.HTTPSConnection(
            place.host, place.port, timeout=_TIMEOUT_S, context=self._session.context
        )
        return self._connection

    def _url(self, datastore: str, path: str) -> str:
        asked = {"dsName": datastore}
        if self._data_center:
            asked["dcPath"] = self._data_center
        return f"/folder/{quote(path)}?{urlencode(asked, quote_via=quote)}"

    def _judge(self, answer: Any, datastore: str, path: str, done: str) -> None:
        if answer.status < 300:
            return
        what = f"'[{datastore}] {path}' could not be {done}"
        if answer.status == 401:
            raise NotAuthenticated(f"{what}: the session has ended", "run it again")
        if answer.status == 403:
            raise Forbidden(f"{what}: the user may not", _HINT)
        if answer.status == 404:
            raise NotFound(f"{what}: there is no such file", "see in the datastore browser")
        if answer.status == 507:
            raise NoSpace(f"{what}: the datastore is full")
        raise InputOutput(f"{what}: status {answer.status} {answer.reason}")


class Reader:
    """Reads from several threads at once, each by a connection of its own. Thread-safe."""

    def __init__(self, session: Session, data_center: str, gate: threading.Semaphore) -> None:
        """Nobody is asked yet.

        Args:
            session: By which.
            data_center: Whose files.
            gate: As many connections read at once.
        """
        self._session = session
        self._data_center = data_center
        self._gate = gate
        self._free: list[Files] = []
        self._closed = False

    def read(self, datastore: str, path: str, offset: int, length: int) -> bytes:
        """See `Files.read`."""
        with self._gate:
            if self._closed:
                raise SnapshotBroken("the backup that this was read for has ended")
            try:
                files = self._free.pop()
            except IndexError:
                files = Files(self._session, self._data_center)
            try:
                return files.read(datastore, path, offset, length)
            except HoldfastError:
                files.close()
                raise
            finally:
                self._free.append(files)

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        while self._free:
            with contextlib.suppress(OSError):
                self._free.pop().close()


def _said(error: BaseException) -> str:
    return (
        str((error.strerror if isinstance(error, OSError) else None) or error)
        or type(error).__name__
    )
