"""The act that the command of this process is: noted before it begins, told when it has ended.

Every command comes by `around`; what it does is in the table of `acts`. Must not load a database:
a note is written, and the audit log hears of it at once where the command used the database anyway,
else from whoever opens it next. Invariants: what is noted as done was done; an act that could not
be noted is said to the person, or not done at all.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.base.errors import Cancelled, HoldfastError, storage_error
from holdfast.faces.cli import opening
from holdfast.faces.cli.acts import ACTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.control.act_notes import ActNote, Draft, NotedJob, NotedRow
    from holdfast.faces.cli.acts import Act

    One = TypeVar("One", bound=str)

DONE, REFUSED, FAILED, UNKNOWN = "done", "refused", "failed", "unknown"
"""As `control.access.Outcome` has them."""

_now: list[Acting] = []


def around(name: str, given: dict[str, Any], run: Callable[[], Any]) -> Any:
    """Run a command, and have the audit log hear of it.

    Args:
        name: Its words, without ``holdfast``.
        given: Those of its options and arguments that were named.
        run: The command.

    Raises:
        StorageError: It can't be noted, and is not done without that.
    """
    act = ACTS.get(name)
    if act is None or os.environ.get(opening.URL_VARIABLE) or not act.applies(given):
        return run()
    acting = Acting(act, given)
    _now.append(acting)
    try:
        acting.begin()
        try:
            status = run()
        except BaseException as error:
            acting.end(error)
            raise
        acting.end(status=status)
        return status
    finally:
        _now.remove(acting)


def about(images: Sequence[str], **more: object) -> None:
    """Say which images the act is about, once that is known; and what else of it is known now."""
    for acting in _now:
        acting.about(images, more)


def each(images: Sequence[One], **more: object) -> Iterator[One]:
    """Images, each an act that is done when the next is asked for."""
    about(images, **more)
    for at, image in enumerate(images):
        for acting in _now:
            acting.at = at
        yield image


def told_elsewhere() -> None:
    """The API does it, and tells of it."""
    for acting in _now:
        acting.told_elsewhere()


def counted(**counters: int) -> None:
    """Say how much was done, by the names that jobs have for it."""
    for acting in _now:
        acting.counters = counters


def done_with_image() -> ActNote | None:
    """The act as it is told by the note of the image that it made."""
    return _now[-1].done_with_image() if _now else None


class Acting:
    """One act of this process. Not thread-safe.

    Attributes:
        at: At which of its images it is, counted from 0; None before the first.
        counters: See `counted`.
    """

    def __init__(self, act: Act, given: dict[str, Any]) -> None:
        self._act = act
        self._given = dict(given)
        self._images: Sequence[str] = act.images(given)
        self._draft: Draft | None = None
        self._carried: ActNote | None = None
        self._is_mine = True
        self._hint: str | None = None
        self.at: int | None = None
        self.counters: dict[str, int] = {}

    def begin(self) -> None:
        """Note that it begins, if there is a site that could remember it.

        Raises:
            StorageError: See `around`.
        """
        error = self._write(UNKNOWN)
        if error is not None and self._act.only_noted:
            raise storage_error(error)(
                "nothing is changed: the audit log could not be told of it: "
                f"can't write in {error.filename}: {error.strerror}",
                "put that right first",
            ) from error

    def about(self, images: Sequence[str], more: dict[str, object]) -> None:
        """See `about`."""
        self._images = list(images)
        self._given |= more
        self._write(UNKNOWN)

    def told_elsewhere(self) -> None:
        """See `told_elsewhere`."""
        self._is_mine = False
        self._discard()

    def done_with_image(self) -> ActNote | None:
        """See `done_with_image`."""
        self._carried = self._note(DONE, {}, ended=True)
        return self._carried

    def end(self, error: BaseException | None = None, status: object = 0) -> None:
        """Note how it ended, and have the log hear of it if that costs little."""
        if not self._is_mine:
            return
        outcome, why, self._hint = _ending(error)
        if self._carried is not None and outcome == DONE:
            self._discard()
            return
        if isinstance(status, int) and status != 0:
            why = {"exit_status": status}
        told = self._write(outcome, why, ended=True)
        if told is not None:
            from holdfast.faces.cli.screen import Screen

            Screen().warn(
                f"the audit log will not have this: can't write in {told.filename}: {told.strerror}"
            )
        elif self._draft is not None:
            _hear(self._draft.note.id)

    def _write(
        self, outcome: str, why: dict[str, Any] | None = None, *, ended: bool = False
    ) -> OSError | None:
        """Note how it stands; what kept that from being written, if something did."""
        if not self._is_mine or not _is_site():
            return None
        # What is killed leaves its note all the same; what loses its power may not, unless it
        # changes what is kept.
        durable = ended or self._act.only_noted
        note = self._note(outcome, why or {}, ended=ended)
        try:
            self._begun().write(note, durable=durable)
        except OSError as error:
            return error
        return None

    def _note(self, outcome: str, why: dict[str, Any], *, ended: bool) -> ActNote:
        from holdfast.base.clock import SystemClock

        rows = self._rows(outcome, why)
        at = SystemClock().now_ns() if ended else None
        # What was refused was never a job, and what goes on is none that has ended.
        job = self._job(why) if ended and outcome != REFUSED else None
        return self._begun().note._replace(rows=tuple(rows), ended_ns=at, job=job)

    def _job(self, why: dict[str, Any]) -> NotedJob | None:
        # One that made an image is told by the note of that image.
        if self._act.job is None or (self._act.job == "backup" and "code" not in why):
            return None
        from base64 import b64encode

        from holdfast.base.ids import client_name
        from holdfast.control.act_notes import NotedJob

        failed = (why["code"], why["message"], self._hint) if "code" in why else None
        paths = self._given.get("paths", ()) if self._act.job == "backup" else ()
        absolute = [os.path.abspath(os.fsencode(one)) for one in paths]
        return NotedJob(
            kind=self._act.job,
            host=client_name(os.uname().nodename),
            images=tuple(self._images),
            paths=tuple(b64encode(one).decode("ascii") for one in absolute),
            counters=self.counters,
            exit_status=int(why.get("exit_status", 0)),
            error=failed,
        )

    def _rows(self, outcome: str, why: dict[str, Any]) -> list[NotedRow]:
        from holdfast.control.act_notes import NotedRow

        tried = self._act.tried(self._given, self._images)
        outcomes = [(outcome, why)] * len(tried)
        if self.at is not None and outcome in {REFUSED, FAILED}:
            # Those before it were done, and those after it were not begun.
            outcomes = [(DONE, {})] * self.at + [(outcome, why)]
        return [
            NotedRow(one.what, one.about, ending, {"from": "local", **one.content, **details})
            for one, (ending, details) in zip(tried, outcomes, strict=False)
        ]

    def _begun(self) -> Draft:
        if self._draft is None:
            from holdfast.base.clock import SystemClock
            from holdfast.base.local_users import local_name
            from holdfast.control.act_notes import ActNotes

            notes = ActNotes(opening.home())
            self._draft = notes.begin(local_name(os.geteuid()), SystemClock().now_ns())
        return self._draft

    def _discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()


def _is_site() -> bool:
    from holdfast.base.config import CONFIG_NAME

    return os.path.exists(opening.home() / CONFIG_NAME)


def _ending(error: BaseException | None) -> tuple[str, dict[str, Any], str | None]:
    """How a command ended, in the audit log's words; and what its error advises."""
    if error is None:
        return DONE, {}, None
    from holdfast.faces.api.statuses import is_refusal
    from holdfast.faces.cli.main import in_words
    from holdfast.faces.cli.screen import ReaderGone

    if isinstance(error, BrokenPipeError | ReaderGone):
        return DONE, {}, None
    if not isinstance(error, Exception | KeyboardInterrupt):
        return FAILED, {"code": "internal", "message": type(error).__name__}, None
    told = in_words(error)
    why = {"code": told.code, "message": told.message}
    # What was interrupted had been begun.
    is_refused = is_refusal(told) and not isinstance(told, Cancelled)
    return (REFUSED if is_refused else FAILED), why, told.hint


def _hear(note: str) -> None:
    """Have the log hear of notes, if this command used the database; else that is for the next."""
    site = opening.opened()
    if site is None or not site.used_database:
        return
    from holdfast.site.notes import hear_acts

    # What can't be told now is told by whoever opens the database next.
    with contextlib.suppress(HoldfastError), site:
        hear_acts(site.database, site.clock, site.act_notes, note)
