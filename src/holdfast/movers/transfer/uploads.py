"""Uploads at work: whose they are, what of them was taken already, and for how long they wait.

Must not speak HTTP, nor be used by several threads: it belongs to one event loop, and sends the
engine's calls to others. Invariants: an upload is there only for the client, the job and the fence
that opened it; of one job there is one upload, the one of the highest fence; a body is given to
the engine once, and a draft is committed once, however often they come.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from holdfast.base.errors import Busy, Fenced, Invalid, UploadMissing, WrongState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from holdfast.engine import Image
    from holdfast.movers.transfer.ports import MediaPool, Receiver, TransferHost
    from holdfast.wire.transfer_tokens import TransferGrant

    InThread = Callable[..., Awaitable[Any]]

AHEAD = 10_000
"""A body may come so many numbers before one that is still on its way."""

FENCES_KEPT = 10_000
"""Of so many jobs the highest fence is remembered; whether one may commit is asked anyhow."""


class Taken:
    """Numbers of bodies, of which nearly all lie in a row from 0 on."""

    def __init__(self) -> None:
        self._below = 0
        self._beyond: set[int] = set()

    def __contains__(self, seq: int) -> bool:
        return seq < self._below or seq in self._beyond

    def has_all(self, count: int) -> bool:
        """Whether all from 0 on are there, so many."""
        return self._below >= count

    def add(self, seq: int) -> None:
        """Remember one."""
        if seq in self:
            return
        self._beyond.add(seq)
        while self._below in self._beyond:
            self._beyond.remove(self._below)
            self._below += 1

    def require_near(self, seq: int) -> None:
        """Keep what is remembered small.

        Raises:
            Invalid: It is too far ahead of the first that did not come.
        """
        if seq >= self._below + AHEAD:
            raise Invalid(f"body {seq} came before body {self._below}, by {AHEAD} or more")


@dataclass(eq=False)
class Upload:
    """One backup on its way in.

    Attributes:
        id: Its name, which nobody can guess.
        client: Whose it is.
        job: For which job.
        fence: Under which fence.
        attempt: The client's own word for this opening.
        receiver: The engine's side.
        pool: Where it goes.
        taken: Numbers of the bodies that the engine has.
        heard_s: When it was last heard of.
        busy: Requests at work.
        taking: Bodies that the engine is at.
        draft: The hash of what is, or was, committed.
        committing: The commit, at work or done well.
        image: What was committed.
        commits_waiting: Commits that wait for bodies.
        given_up: Whether it was abandoned.
        news: Is set whenever a body was taken, and when the upload is given up.
    """

    id: str
    client: str
    job: int
    fence: int
    attempt: str
    receiver: Receiver
    pool: MediaPool
    heard_s: float
    taken: Taken = field(default_factory=Taken)
    busy: int = 0
    taking: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    draft: bytes | None = None
    image: Image | None = None
    committing: asyncio.Task[bytes] | None = None
    commits_waiting: int = 0
    given_up: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, count: int, timeout_s: float) -> None:
        """Wait until so many bodies were taken.

        Raises:
            UploadMissing: It was given up meanwhile.
            Busy: They did not come in time.
        """
        self.taken.require_near(count)
        self.commits_waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                while not self.taken.has_all(count) and not self.given_up:
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError as error:
            raise Busy(
                f"not all of {count} bodies of job {self.job} came within {timeout_s:.0f} s"
            ) from error
        finally:
            self.commits_waiting -= 1
        if self.given_up:
            raise UploadMissing(f"the upload of job {self.job} was given up")

    async def take(self, seq: int, body: bytes, in_thread: InThread) -> None:
        """Give a body to the engine, unless it has it or is at it."""
        if seq in self.taken:
            return
        task = self.taking.get(seq)
        if task is None:
            task = asyncio.create_task(self._take(seq, body, in_thread))
            self.taking[seq] = task
            task.add_done_callback(partial(self._took, seq))
        await asyncio.shield(task)

    async def _take(self, seq: int, body: bytes, in_thread: InThread) -> None:
        await in_thread(self.receiver.take, body)
        self.taken.add(seq)
        self.news.set()

    def _took(self, seq: int, task: asyncio.Task[None]) -> None:
        del self.taking[seq]
        if not task.cancelled():
            # Whoever waits for it hears of it; perhaps nobody does any more.
            task.exception()

    async def commit(self, draft: bytes, work: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Commit, once for all requests that bring the same draft.

        Raises:
            WrongState: It was committed with another one.
        """
        digest = hashlib.sha256(draft).digest()
        if self.committing is not None and self.draft != digest:
            raise WrongState(f"job {self.job} has committed another draft in this upload")
        if self.committing is None:
            self.draft = digest
            self.committing = asyncio.create_task(work())
            self.committing.add_done_callback(self._committed)
        return await asyncio.shield(self.committing)

    def _committed(self, task: asyncio.Task[bytes]) -> None:
        if task.cancelled() or task.exception() is not None:
            # What failed may be tried again.
            self.committing = None


class Uploads:
    """All uploads of a media server."""

    def __init__(self, host: TransferHost, in_thread: InThread) -> None:
        self._host = host
        self._in_thread = in_thread
        self._by_id: dict[str, Upload] = {}
        self._by_job: dict[int, Upload] = {}
        # A lock is there for as long as somebody holds it, or waits for it.
        self._opening: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._fences: OrderedDict[int, int] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def commits_waiting(self) -> int:
        """Commits that wait for bodies."""
        return sum(one.commits_waiting for one in self._by_id.values())

    async def open(self, grant: TransferGrant, attempt: str, pool: MediaPool) -> Upload:
        """Begin an upload, or hand back the one that the same opening began.

        Raises:
            Fenced: The job was given out under a higher fence.
            Busy: The client has too many, or the server stops.
        """
        lock = self._opening.setdefault(grant.job, asyncio.Lock())
        async with lock:
            return await self._open(grant, attempt, pool)

    async def _open(self, grant: TransferGrant, attempt: str, pool: MediaPool) -> Upload:
        self._require_fence(grant)
        older = self._by_job.get(grant.job)
        if older is not None:
            if (older.client, older.fence, older.attempt) == (grant.client, grant.fence, attempt):
                return older
            await self.abandon(older)
        self._require_room(grant)
        if not await self._in_thread(self._host.may_commit, grant.job, grant.fence):
            raise Fenced(f"job {grant.job} is not at work any more under fence {grant.fence}")
        # Whatever the client's clock says: images are judged by when this site had them begin.
        now_ns = self._host.clock.now_ns()
        receiver: Receiver = await self._in_thread(lambda: pool.receive(started_ns=now_ns))
        if self._closed:
            await self._in_thread(receiver.abandon)
            raise Busy("the media server stops")
        upload = Upload(
            id=secrets.token_hex(16),
            client=grant.client,
            job=grant.job,
            fence=grant.fence,
            attempt=attempt,
            receiver=receiver,
            pool=pool,
            heard_s=self._host.now_s(),
        )
        self._by_id[upload.id] = self._by_job[grant.job] = upload
        return upload

    def get(self, upload_id: str, grant: TransferGrant) -> Upload:
        """The upload of this id, for who opened it.

        Raises:
            UploadMissing: There is none, or it is another's.
            Fenced: The job was given out under a higher fence.
        """
        upload = self._by_id.get(upload_id)
        if upload is None or (upload.client, upload.job) != (grant.client, grant.job):
            if grant.fence < self._fences.get(grant.job, 0):
                raise self._fenced(grant)
            raise UploadMissing(f"there is no upload '{upload_id[:64]}' of job {grant.job}")
        if upload.fence != grant.fence:
            raise self._fenced(grant)
        return upload

    async def abandon(self, upload: Upload) -> None:
        """Forget an upload, and have the engine forget it unless it was committed."""
        self._by_id.pop(upload.id, None)
        if self._by_job.get(upload.job) is upload:
            del self._by_job[upload.job]
        upload.given_up = True
        upload.news.set()
        committing = upload.committing
        if committing is not None:
            # A commit that is on its way ends first: there is either an image or none.
            await asyncio.wait({committing})
            if not committing.cancelled() and committing.exception() is None:
                return
        await self._in_thread(upload.receiver.abandon)

    async def sweep(self) -> None:
        """Abandon what was not heard of for the time of the lease."""
        silent_since_s = self._host.now_s() - self._host.limits.lease_s
        for upload in list(self._by_id.values()):
            if not upload.busy and upload.heard_s <= silent_since_s:
                await self.abandon(upload)

    async def close(self) -> None:
        """Abandon all; none is opened afterwards."""
        self._closed = True
        while self._by_id:
            await self.abandon(next(iter(self._by_id.values())))

    def _require_fence(self, grant: TransferGrant) -> None:
        highest = self._fences.get(grant.job, 0)
        if grant.fence < highest:
            raise self._fenced(grant)
        self._fences[grant.job] = grant.fence
        self._fences.move_to_end(grant.job)
        while len(self._fences) > FENCES_KEPT:
            self._fences.popitem(last=False)

    def _require_room(self, grant: TransferGrant) -> None:
        of_client = sum(
            one.client == grant.client and one.image is None for one in self._by_id.values()
        )
        if of_client >= self._host.limits.client_uploads:
            raise Busy(
                f"client '{grant.client}' has {of_client} uploads at work, as many as it may have"
            )

    def _fenced(self, grant: TransferGrant) -> Fenced:
        highest = self._fences.get(grant.job, 0)
        return Fenced(
            f"job {grant.job} was given out again: fence {grant.fence} is past, it is {highest}"
        )
