"""Do the work that a master offers, and tell it how that goes.

Must not touch the catalog, nor decide what is worth doing. Invariants: while a job is at work its
lease is renewed, and where that fails for as long as the lease lasts, or the master says that
the job is another's, the work stops before anything is committed; whatever happens, the master is
told of the end once, with the fence under which it came to be.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Cancelled,
    CommandFailed,
    Fenced,
    HoldfastError,
    InternalError,
)
from holdfast.base.ids import ClientName, ImageId, SourceName
from holdfast.base.units import format_size
from holdfast.movers.backup_run import BackupOrder, absolute_paths
from holdfast.movers.commands import run_command
from holdfast.movers.restore_mark import RestoreMark
from holdfast.movers.restore_run import RestoreOrder
from holdfast.movers.whole_restore import restore_whole
from holdfast.wire.machine_work import BootCheckWork, InstantWork, MachineRestoreWork, MachineWork
from holdfast.wire.messages import (
    Answer,
    CommandWork,
    ImageNote,
    RestoreWork,
    SiteWork,
    WorkEnded,
    WorkError,
    WorkEvent,
    WorkProgress,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast.engine import Counters, Finding, Image
    from holdfast.movers.machines.file_restore import Found
    from holdfast.movers.ways import ForSite, Ways
    from holdfast.wire.messages import BackupWork, Master, WorkOffer

    WithCommands = BackupWork | MachineWork | CommandWork

REPORTS_S = 1.0
"""How often the master hears of a job at work; ten times a lease at most."""

EVENTS_KEPT = 1000
"""How many events of a job are told; a manifest keeps as many findings."""

COUNTERS = (
    *("files", "dirs", "others", "bytes_found", "bytes_read", "bytes_online", "files_changed"),
    *("files_unchanged", "bytes_new", "bytes_transmitted", "bytes_left", "bytes_stored"),
    *("findings", "bytes_total", "files_total"),
)


@dataclass
class Agent:
    """One machine's worker. Each offer may be worked on in a thread of its own.

    Attributes:
        ways: How it moves data.
        for_site: How it does what is for the site as a whole.
        master: Whom it tells.
        now_s: A clock that only goes forward, in seconds.
    """

    ways: Ways
    for_site: ForSite
    master: Master
    now_s: Callable[[], float] = time.monotonic

    def work(self, offer: WorkOffer) -> None:
        """Do one offer to its end. Never raises: what goes wrong is told to the master."""
        task = _Task(self, offer)
        error: WorkError | None = None
        try:
            task.run()
        except HoldfastError as failure:
            error = WorkError(failure.code, failure.message, failure.hint)
        except Exception as defect:  # noqa: BLE001 - it is told, as every other end is
            error = WorkError(
                InternalError.code, f"{type(defect).__name__}: {defect}", InternalError.advice
            )
        task.tell_end(error)


class _Task:
    """One offer at work."""

    def __init__(self, agent: Agent, offer: WorkOffer) -> None:
        self._agent = agent
        self._offer = offer
        self._events: list[WorkEvent] = []
        self._counters: dict[str, int] = {}
        self._image: Image | None = None
        self._named: dict[str, str] = {}
        self._findings: Sequence[Finding | Found] = ()
        self._findings_total = 0
        self._heard_s = agent.now_s()
        self._next_s = self._heard_s
        self._every_s = min(REPORTS_S, offer.lease_s / 10)

    def run(self) -> None:
        work = self._offer.work
        self._alive()
        if isinstance(work, SiteWork):
            self._events += self._agent.for_site(work, self._report, self._alive)
        elif isinstance(work, RestoreWork):
            self._restore(work)
        elif isinstance(work, CommandWork):
            self._one_command(work)
        elif isinstance(work, MachineRestoreWork):
            self._agent.ways.restore_machine(work, self._report, self._alive, self._events.append)
        elif isinstance(work, BootCheckWork):
            self._agent.ways.check_boot(work, self._report, self._alive, self._events.append)
        elif isinstance(work, InstantWork):
            self._agent.ways.instant(work, self._count, self._alive, self._events.append)
        elif isinstance(work, MachineWork):
            machine = {"HOLDFAST_MACHINE_NAME": work.name}
            self._back_up(work, machine, lambda: self._machine(work))
        else:
            self._back_up(work, {}, lambda: self._files(work))

    def _files(self, work: BackupWork) -> Image:
        return self._agent.ways.back_up(_order(work), self._report)

    def _machine(self, work: MachineWork) -> Image:
        return self._agent.ways.back_up_machine(
            work, self._report, self._alive, self._events.append
        )

    def _restore(self, work: RestoreWork) -> None:
        target = os.fsencode(work.target)
        mark = None if work.overwrite else RestoreMark(target, self._offer.job_id)
        order = RestoreOrder(
            image=ImageId(work.image),
            paths=tuple(os.fsencode(path) for path in work.paths),
            target=target,
            overwrite=work.overwrite if mark is None else mark.claim(),
            strip_components=work.strip_components,
            verify=work.verify,
        )
        images = [ImageId(one) for one in (work.image, *work.also)]
        result = restore_whole(
            images,
            order,
            lambda one: self._agent.ways.restore(one, self._report),
            work.overwrite or "always",
        )
        if mark is not None:
            mark.remove()
        self._findings, self._findings_total = result.findings, result.findings_total

    def _back_up(
        self, work: WithCommands, named: dict[str, str], back_up: Callable[[], Image]
    ) -> None:
        """Back up between two commands.

        Args:
            work: Has the commands.
            named: What they are told beside the labels.
            back_up: Does it.
        """
        self._named = named
        if work.pre_command:
            self._pre(work)
        failed = True
        try:
            self._image = back_up()
            self._findings = self._image.findings
            self._findings_total = self._image.findings_total
            self._tell_left(self._image.stats)
            failed = False
        finally:
            # What the first command made ready is put back whatever became of the backup.
            if work.post_command:
                self._post(work, failed=failed)

    def _one_command(self, work: CommandWork) -> None:
        """Run what goes before several backups, or after them; the master sees to which is when."""
        if work.pre_command:
            # Of what this one no longer has, the master has the other command run.
            self._pre(work, tidies_up=(Cancelled,))
        elif work.post_command:
            failed_is = {"HOLDFAST_FAILED": "1" if work.failed else "0"}
            self._command(work, work.post_command, "post-command", failed_is, self._renew)

    def _tell_left(self, stats: Mapping[str, int]) -> None:
        left_bytes = stats.get("bytes_left", 0)
        if left_bytes:
            message = (
                f"{format_size(left_bytes)} of {format_size(stats['bytes_new'])} went "
                "uncompressed, as that was faster; the media server compressed it"
            )
            self._events.append(WorkEvent("info", "left-uncompressed", message))

    def tell_end(self, error: WorkError | None) -> None:
        """Tell the master of the end, until it has heard or the job is no longer ours."""
        image = self._image
        note = None if image is None else note_of(image)
        events = self._events + [
            WorkEvent(one.severity, one.code, one.message, one.path) for one in self._findings
        ]
        total = len(self._events) + self._findings_total
        message = WorkEnded(
            job_id=self._offer.job_id,
            fence=self._offer.fence,
            image=note,
            events=tuple(events[:EVENTS_KEPT]),
            events_total=total,
            counters=dict(image.stats) if image is not None else self._counters,
            error=error,
        )
        while True:
            try:
                self._agent.master.hear(message)
            except HoldfastError:
                if self._agent.now_s() - self._heard_s > self._offer.lease_s:
                    # The master finds the image by its label when it takes the job up again.
                    return
                time.sleep(self._every_s)
            else:
                return

    def _pre(
        self,
        work: WithCommands,
        tidies_up: tuple[type[HoldfastError], ...] = (Cancelled, Fenced),
    ) -> None:
        try:
            self._command(work, work.pre_command, "pre-command", {}, self._alive)
        except (Cancelled, Fenced) as error:
            cut_off = isinstance(error, tidies_up)
            raise
        except CommandFailed as error:
            cut_off = error.cut_off
            raise
        else:
            cut_off = False
        finally:
            # One that failed by itself has tidied up; one that was killed could not.
            if cut_off and work.post_command:
                self._post(work, failed=True)

    def _post(self, work: WithCommands, *, failed: bool) -> None:
        failed_is = {"HOLDFAST_FAILED": "1" if failed else "0"}
        try:
            self._command(work, work.post_command, "post-command", failed_is, self._renew)
        except CommandFailed:
            # It must not hide why the backup itself failed.
            if not failed:
                raise

    def _command(
        self,
        work: WithCommands,
        command: tuple[str, ...],
        which: str,
        environ: dict[str, str],
        alive: Callable[[], None],
    ) -> None:
        labels = {f"HOLDFAST_{name.upper()}": value for name, value in work.labels.items()}
        try:
            said = run_command(
                command, {**labels, **self._named, **environ}, work.command_timeout_s, alive
            )
        except CommandFailed as error:
            message = f"{which}: {error.message}"
            self._events.append(WorkEvent("error", error.code, message))
            told = CommandFailed(message, error.hint)
            told.cut_off = error.cut_off
            raise told from error
        if said:
            self._events.append(WorkEvent("info", which, f"{which} said: {said}"))

    def _report(self, counters: Counters | None) -> None:
        if counters is not None:
            self._counters = {name: getattr(counters, name) for name in COUNTERS}
        self._alive()

    def _count(self, counters: Mapping[str, int]) -> None:
        self._counters = dict(counters)
        self._alive()

    def _renew(self) -> None:
        """Renew the lease for what is to be done whoever has the job, or wants it stopped."""
        with contextlib.suppress(Cancelled, Fenced):
            self._alive()

    def _alive(self) -> None:
        """Renew the lease if it is time to; raise if the work is to stop."""
        now_s = self._agent.now_s()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        message = WorkProgress(self._offer.job_id, self._offer.fence, self._counters)
        try:
            answer = self._agent.master.hear(message)
        except HoldfastError as error:
            if now_s - self._heard_s > self._offer.lease_s:
                raise Fenced(
                    f"job {self._offer.job_id} lost its master for "
                    f"{now_s - self._heard_s:.0f} s: {error.message}"
                ) from error
            return
        self._heard_s = now_s
        if answer is Answer.FENCED:
            raise Fenced(f"job {self._offer.job_id} was given to another worker")
        if answer is Answer.STOP:
            raise Cancelled(f"job {self._offer.job_id} was told to stop")


def _order(work: BackupWork) -> BackupOrder:
    given = [os.fsencode(path) for path in work.paths]
    paths = absolute_paths(given, b"/", nested=work.one_file_system)
    return BackupOrder(
        client=ClientName(work.client),
        paths=paths,
        exclude=work.exclude,
        one_file_system=work.one_file_system,
        compression=work.compression,
        read_all=work.read_all,
        parent=None if work.parent is None else ImageId(work.parent),
        name=SourceName(work.source),
        labels=work.labels,
        client_key=work.client_key,
        sealed_names=work.sealed_names,
    )


def note_of(image: Image) -> ImageNote:
    """What a catalog keeps of an image."""
    return ImageNote(
        id=image.id,
        number=image.number,
        source=image.source,
        host=image.host,
        started_ns=image.started_ns,
        finished_ns=image.finished_ns,
        parent=image.parent,
        status=image.status,
        stats=dict(image.stats),
        findings_total=image.findings_total,
        software=image.software,
        labels=dict(image.labels),
        client_key=image.client_key,
        has_sealed_names=image.has_sealed_names,
    )
