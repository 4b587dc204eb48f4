"""The agent's half of the data path: what the engine asks for, asked of a media server.

Must not look into blocks. Invariants: every request may be done twice and counts once, so one whose
connection failed is put back and goes over another; a call ends with an answer, with the error that
the media server told of, or when nothing went well for `deadline_s`; `cancel` ends every call.

All connections pull from one queue, so that each path carries what it can. A path whose connection
failed rests for a while; what was on it is put back at once.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Cancelled,
    Fenced,
    HoldfastError,
    InternalError,
    Retry,
)
from holdfast.movers.transfer.answers import AGAIN
from holdfast.movers.transfer.calls import Call, is_small
from holdfast.movers.transfer.connection import (
    GONE_BESIDE_OTHERS_MS,
    GONE_MS,
    Connection,
    Request,
    Response,
)
from holdfast.movers.transfer.opened import Opened, read_opened
from holdfast.movers.transfer.paths import Path, PathState, unreachable
from holdfast.movers.transfer.rate import SLOWEST_BYTES_PER_S, RateLimit
from holdfast.wire.problem import error_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

PREFIX = "/v1/transfer"
DEADLINE_S = 600.0
ABANDON_S = 3.0
CONNECTIONS_PER_PATH = 2
"""One sends while the other waits for its answer."""

SMALL_CONNECTIONS_PER_PATH = 2
"""Besides, for what is small: a question does not wait behind bodies of 8 MiB."""

DOUBLED_S = 0.5
"""What is small and not answered for so long is asked over another path as well."""

_DEFECTS_TRIED = 3
_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
_WAKE_S = 1.0
_RANDOM = secrets.SystemRandom()


@dataclass(eq=False)
class TransferLink:
    """The engine's link to a media server. Thread-safe; calls wait for their answers.

    Attributes:
        paths: Where to.
        context: Has this machine's certificate and the site's authority.
        token: Gives a token that is good for a while; asked for each request, from any thread.
        check_peer: Is given the server's certificate in DER; raises if it is not a media server's.
        rate: What may go over all connections together.
        deadline_s: For how long nothing may go well.
        connections_per_path: For what is bulky, at most.
        bodies_ahead: Of bodies of one path, how many are not waited for.
        now_s: A clock that only goes forward.
    """

    paths: Sequence[Path]
    context: ssl.SSLContext
    token: Callable[[], str]
    check_peer: Callable[[bytes], None] = lambda _: None
    rate: RateLimit = field(default_factory=RateLimit)
    deadline_s: float = DEADLINE_S
    connections_per_path: int = CONNECTIONS_PER_PATH
    bodies_ahead: int = 0
    now_s: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.states = [PathState(path, self.now_s) for path in self.paths]
        self._changed = threading.Condition()
        self._queue: deque[Call] = deque()
        self._behind: list[Call] = []
        # The engine's own threads keep one path busy.
        self._ahead = self.connections_per_path * (len(self.paths) - 1) + self.bodies_ahead
        self._awaits = False
        self._open: set[Connection] = set()
        self._upload: str | None = None
        self._seq = 0
        self._cancelled = False
        self._closed = threading.Event()
        self._well_s = self.now_s()
        self._trouble: HoldfastError | None = None
        self._threads: list[threading.Thread] = []

    def open_upload(self, *, read_all: bool, at_work: Callable[[], None] = lambda: None) -> Opened:
        """Begin a backup.

        Args:
            read_all: Whether no image is to be compared with.
            at_work: Called, by who calls this, whenever the media server says that it is still at
                work on this; what it raises ends the wait.

        Raises:
            HoldfastError: It may not begin, or nobody answers.
        """
        attempt = secrets.token_hex(16)
        said = {"read_all": read_all, "attempt": attempt}
        call = self._call("POST", "/uploads", json.dumps(said).encode())
        answer = self._finish(call, self.deadline_s, at_work)
        opened = read_opened(answer)
        self._upload, self._awaits = opened.upload, opened.awaits
        return opened

    def terms(self) -> bytes:
        """What the engine needs for a restore."""
        return self._ask("GET", "/terms")

    def manifest(self, image: str) -> bytes:
        """An image's manifest."""
        return self._ask("GET", f"/images/{image}")

    def terms_and_manifest(self, image: str) -> tuple[bytes, bytes]:
        """What `terms` and `manifest` give, both asked for at once."""
        terms = self._call("GET", "/terms")
        with self._changed:
            self._put(terms)
        manifest = self.manifest(image)
        with self._changed:
            while not terms.over:
                self._wait(terms, self.deadline_s)
        return terms.result(), manifest

    def missing(self, names: bytes) -> bytes:
        """Which of these chunks the pool lacks, as a bitmap."""
        return self._ask("POST", f"{self._at()}/missing", names)

    def send(self, body: bytes) -> None:
        """Hand a body of blocks over; back when the media server has it, or soon will.

        Of bodies that are not acknowledged yet there are never more than keep all paths busy; what
        went wrong with one of them is raised by a later call, by `commit` at the latest.
        """
        with self._changed:
            target = f"{PREFIX}{self._at()}/blocks?seq={self._seq}"
            self._seq += 1
            call = Call(Request("POST", target, body), self.now_s(), bulky=True)
            self._put(call)
            self._behind.append(call)
            while not call.over and len(self._behind) > self._ahead:
                self._wait(self._behind[0], self.deadline_s)
                self._settle()
            self._settle()

    def read(self, wanted: bytes) -> bytes:
        """A body of the blocks that hold the wanted chunks."""
        return self._ask("POST", "/read", wanted, bulky=not is_small(wanted))

    def commit(self, draft: bytes) -> bytes:
        """Make an image of what was sent; its manifest.

        Where the media server waits for the bodies itself, it is told how many there are.
        """
        with self._changed:
            self._settle()
            while self._behind and not self._awaits:
                self._wait(self._behind[0], self.deadline_s)
                self._settle()
            after = f"?after={self._seq}" if self._awaits else ""
            request = Request("POST", f"{PREFIX}{self._at()}/commit{after}", draft)
            call = Call(request, self.now_s(), waits=self._awaits)
            self._put(call)
            while not call.over:
                # A body that was refused never gets there: the commit would wait for it.
                self._settle()
                self._wait(call, self.deadline_s)
            return call.result()

    def abandon(self) -> None:
        """Give the upload up, if the media server can be told; it finds out by itself if not."""
        if self._upload is not None:
            request = Request("DELETE", PREFIX + self._at())
            call = Call(request, self.now_s(), last=True)
            try:
                self._finish(call, ABANDON_S)
            except HoldfastError:
                return

    def cancel(self) -> None:
        """End every call that waits with `Cancelled`, and every one that is yet to come."""
        with self._changed:
            self._cancelled = True
            self._queue.clear()
            for connection in self._open:
                connection.cut()
            self._changed.notify_all()

    def close(self) -> None:
        """Close all connections and wait for the threads."""
        with self._changed:
            self._closed.set()
        self.cancel()
        for thread in self._threads:
            thread.join()

    def _at(self) -> str:
        if self._upload is None:
            raise InternalError("there is no upload yet")
        return f"/uploads/{self._upload}"

    def _ask(
        self, method: str, target: str, body: bytes | None = None, *, bulky: bool = False
    ) -> bytes:
        return self._finish(self._call(method, target, body, bulky=bulky), self.deadline_s)

    def _call(
        self, method: str, target: str, body: bytes | None = None, *, bulky: bool = False
    ) -> Call:
        return Call(Request(method, PREFIX + target, body), self.now_s(), bulky)

    def _finish(
        self, call: Call, deadline_s: float, at_work: Callable[[], None] = lambda: None
    ) -> bytes:
        with self._changed:
            self._put(call)
        signs = 0
        while True:
            with self._changed:
                while not call.over and call.signs == signs:
                    self._wait(call, deadline_s)
                if call.over:
                    return call.result()
                signs = call.signs
            # It may ask the master, for which no thread of the link has to wait.
            at_work()

    def _signed(self, call: Call) -> None:
        with self._changed:
            call.signs += 1
            self._changed.notify_all()

    def _put(self, call: Call) -> None:
        self._start()
        self._queue.append(call)
        self._changed.notify_all()

    def _wait(self, call: Call, deadline_s: float) -> None:
        """Wait for something to change, unless there is nothing to wait for any more."""
        if self._closed.is_set() or (self._cancelled and not call.last):
            raise Cancelled("the transfer was stopped")
        left_s = self._left_s(call, deadline_s)
        if left_s <= 0:
            if call in self._queue:
                self._queue.remove(call)
            raise self._unreachable(call, deadline_s)
        if len(self.states) > 1 and not call.bulky:
            self._double(call)
            left_s = min(left_s, DOUBLED_S)
        self._changed.wait(min(left_s, _WAKE_S))

    def _double(self, call: Call) -> None:
        """Put what may be stuck on a dead path into the queue again, for the others."""
        if call.taken_s is None or call.doubled or self.now_s() - call.taken_s < DOUBLED_S:
            return
        call.doubled = True
        if call not in self._queue:
            self._queue.appendleft(call)
        self._changed.notify_all()

    def _settle(self) -> None:
        """Forget bodies that are acknowledged; raise what another went wrong with."""
        for call in self._behind:
            if call.over:
                call.result()
        self._behind = [call for call in self._behind if not call.over]

    def _left_s(self, call: Call, deadline_s: float) -> float:
        since_s = call.began_s if call.last else max(call.began_s, self._well_s)
        if call.failing_since_s is not None:
            since_s = min(since_s, call.failing_since_s)
        return since_s + deadline_s - self.now_s()

    def _unreachable(self, call: Call, deadline_s: float) -> HoldfastError:
        return call.trouble or self._trouble or unreachable(self.states, deadline_s)

    def _start(self) -> None:
        if self._threads:
            return
        for state in self.states:
            for number in range(SMALL_CONNECTIONS_PER_PATH + self.connections_per_path):
                thread = threading.Thread(
                    target=self._carry,
                    args=(state, number >= SMALL_CONNECTIONS_PER_PATH),
                    name=f"transfer {state.path} {number}",
                    daemon=True,
                )
                self._threads.append(thread)
                thread.start()

    def _carry(self, state: PathState, bulky: bool) -> None:
        """Carry calls over one connection after the other of one path, until closed."""
        connection: Connection | None = None
        while not self._closed.is_set():
            if connection is not None and not self._good(state, connection):
                self._drop(connection)
                connection = None
            call = self._next(state, bulky, connection)
            if connection is None:
                # Nothing is taken from the queue for a path that may be dead.
                connection = self._connect(state)
                continue
            if call is None:
                continue
            try:
                self._carry_one(state, connection, call)
            except Exception as error:  # noqa: BLE001 - whoever waits is to hear of it
                self._end(call, error=InternalError(f"{type(error).__name__}: {error}"))
            finally:
                with self._changed:
                    state.at_work -= call.bulky
                    self._changed.notify_all()
        self._drop(connection)

    def _carry_one(self, state: PathState, connection: Connection, call: Call) -> None:
        try:
            token = self.token()
        except HoldfastError as error:
            if error.retry is Retry.NEVER or isinstance(error, Fenced | Cancelled):
                self._end(call, error=error)
            else:
                self._later(call, error)
            return
        try:
            self._exchange(state, connection, call, token)
        except OSError as error:
            state.failed(error, broke=True)
            self._put_back(call, 0.0)

    def _good(self, state: PathState, connection: Connection) -> bool:
        """Whether a connection may be used: what broke on its path since may be its fate, too."""
        return connection.usable and connection.made_s > state.broke_s

    def _next(self, state: PathState, bulky: bool, connection: Connection | None) -> Call | None:
        """Wait for a call that this connection may carry, and take it.

        None when closed, and where there is a call but no good connection.
        """
        connected = connection is not None
        waits = bulky and connected
        with self._changed:
            state.idle += waits
            try:
                while not self._closed.is_set():
                    call, wake_s = self._look(state, bulky, connected)
                    if call is None:
                        self._changed.wait(wake_s)
                        continue
                    if connection is None or not self._good(state, connection):
                        return None
                    self._queue.remove(call)
                    call.taken_s, call.on = self.now_s(), state
                    state.at_work += call.bulky
                    if self._queue:
                        # What was left to this path is another's turn now.
                        self._changed.notify_all()
                    return call
            finally:
                state.idle -= waits
        return None

    def _look(
        self, state: PathState, bulky: bool, connected: bool
    ) -> tuple[Call | None, float | None]:
        """A call for this path, or when to look again; None for when something changes."""
        rest_s = 0.0 if connected else state.rest_s()
        if rest_s > 0:
            return None, rest_s
        now_s = self.now_s()
        wake_s: float | None = None
        for call in self._queue:
            if call.waits and bulky:
                continue
            if call.bulky and not (bulky and self._may_carry(state, connected)):
                continue
            if call.doubled and call.on is state:
                continue
            if call.not_before_s <= now_s:
                return call, None
            wake_s = min(wake_s or _WAKE_S, call.not_before_s - now_s)
        return None, wake_s

    def _may_carry(self, state: PathState, connected: bool) -> bool:
        """Whether it is this path's turn for what is bulky: each gets one before any gets two.

        At a low rate few are carried at once: each would be so slow that it seemed to be dead.
        """
        rate = self.rate.bytes_per_s
        if rate is not None:
            most = max(1, int(rate // SLOWEST_BYTES_PER_S))
            if sum(one.at_work for one in self.states) >= most:
                return False
        return not connected or not any(
            other.idle > 0 and other.at_work < state.at_work for other in self.states
        )

    def _connect(self, state: PathState) -> Connection | None:
        """A new connection; None if there is none to be had, or the link is closed."""
        if self._closed.is_set():
            return None
        path = state.path
        try:
            connection = Connection(
                (path.host, path.port),
                path.source,
                self.context,
                self.rate,
                self.check_peer,
                GONE_MS if len(self.states) == 1 else GONE_BESIDE_OTHERS_MS,
            )
            connection.made_s = self.now_s()
        except (OSError, HoldfastError) as error:
            # A server that is not the one wanted is as good as none.
            state.failed(error)
            if isinstance(error, HoldfastError):
                self._trouble = error
            return None
        self._trouble = None
        with self._changed:
            self._open.add(connection)
            if self._closed.is_set():
                connection.cut()
        return connection

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            with self._changed:
                self._open.discard(connection)
            connection.close()

    def _exchange(self, state: PathState, connection: Connection, call: Call, token: str) -> None:
        began_s = self.now_s()
        answer = connection.exchange(call.request, token, partial(self._signed, call))
        moved_bytes = len(call.request.body or b"") + len(answer.body)
        state.went_well(moved_bytes, self.now_s() - began_s)
        if answer.status < 300:
            self._end(call, answer)
            return
        error = error_of(answer.status, answer.body)
        defect = isinstance(error, InternalError) and call.tries + 1 >= _DEFECTS_TRIED
        if answer.status in AGAIN and not defect:
            self._later(call, error)
        else:
            self._end(call, error=error)

    def _later(self, call: Call, error: HoldfastError) -> None:
        call.tries += 1
        pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** min(call.tries, 10))
        self._put_back(call, pause_s * _RANDOM.uniform(0.5, 1.5), error)

    def _put_back(self, call: Call, pause_s: float, trouble: HoldfastError | None = None) -> None:
        with self._changed:
            now_s = self.now_s()
            call.trouble = trouble or call.trouble
            call.not_before_s = now_s + pause_s
            call.taken_s, call.doubled = None, False
            if call.failing_since_s is None:
                call.failing_since_s = now_s
            wanted = not call.over and (not self._cancelled or call.last)
            if wanted and call not in self._queue:
                self._queue.appendleft(call)
            self._changed.notify_all()

    def _end(
        self, call: Call, answer: Response | None = None, error: HoldfastError | None = None
    ) -> None:
        with self._changed:
            if answer is not None:
                self._well_s = self.now_s()
            if not call.over:
                # Of what was asked twice the first answer counts.
                call.answer, call.error = answer, error
            if call in self._queue:
                self._queue.remove(call)
            self._changed.notify_all()
