"""Images that the catalog has yet to hear of: a note of each, left when its backup ended.

A backup needs no database that way: whoever opens the catalog next hands the notes over. Must
not import the catalog. Invariants: a note is whole or not there; it goes only when the catalog
has its image; handing one over twice changes nothing.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.base.errors import CatalogError, InputOutput, storage_error
from holdfast.base.files import remove_unfinished, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from holdfast.control.act_notes import ActNote
    from holdfast.control.catalog import Manifest

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Note:
    """What the catalog keeps of an image's manifest, and the pool that has the image."""

    id: str
    number: int
    source: str
    host: str
    started_ns: int
    finished_ns: int
    parent: str | None
    status: str
    stats: dict[str, int]
    findings_total: int
    software: str
    pool: str
    labels: dict[str, str] = field(default_factory=dict)
    findings: list[list[str]] = field(default_factory=list)
    """Severity, code, message, and the path as base64, of the first of them."""
    client_key: str | None = None
    has_sealed_names: bool = False
    act: dict[str, Any] | None = None
    """What the audit log is to hear of the command that made it; see `act_notes`."""


class Finding(Protocol):
    """A problem with one file, as the engine's ``Finding``."""

    @property
    def path(self) -> bytes:
        """Which file."""
        ...

    @property
    def code(self) -> str:
        """A stable word for the cause."""
        ...

    @property
    def message(self) -> str:
        """The same in a sentence."""
        ...

    @property
    def severity(self) -> str:
        """How bad it is: warning or error."""
        ...


class Recorder(Protocol):
    """The part of the catalog that takes notes over."""

    def record_image(self, image: Manifest, pool_id: str) -> None:
        """Note an image and its copy in a pool; repeating is harmless."""
        ...


class Inbox:
    """The notes in one directory. Several processes may leave and hand over at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def leave(
        self,
        image: Manifest,
        pool: str,
        findings: Iterable[Finding] = (),
        act: ActNote | None = None,
    ) -> None:
        """Leave a note of a committed image; durable on return.

        Args:
            image: Its manifest.
            pool: The pool that has it.
            findings: Problems with single files, for the job that the image is told as.
            act: The command that made it, for the audit log.

        Raises:
            StorageError: It can't be written: there is no room, no permission, or an error. The
                image is safe in the pool.
        """
        others = {"pool", "findings", "act"}
        facts = {name: getattr(image, name) for name in Note.__slots__ if name not in others}
        told = [
            [one.severity, one.code, one.message, b64encode(one.path).decode("ascii")]
            for one in findings
        ]
        plain = None if act is None else act.to_plain()
        note = Note(**facts, pool=pool, findings=told, act=plain)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._directory / (note.id + _SUFFIX), json.dumps(asdict(note)).encode())
        except OSError as error:
            kind = storage_error(error)
            raise kind(
                f"image {note.id} is safe in the pool, but the catalog could not be told: "
                f"can't write in {self._directory}: {error.strerror}",
                "once that is put right: holdfast catalog rebuild",
            ) from error

    def hand_over(
        self, catalog: Recorder, then: Callable[[Note], None] = lambda _note: None
    ) -> None:
        """Give every note to the catalog.

        Args:
            catalog: Takes it first.
            then: Takes it as well, before it goes; repeating has to be harmless.

        Raises:
            CatalogError: A note can't be understood; those before it are handed over.
        """
        for path in self.notes():
            try:
                note = Note(**json.loads(path.read_bytes()))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputOutput(f"can't read {path}: {error.strerror}") from error
            except (ValueError, TypeError) as error:
                raise CatalogError(
                    f"the note {path} of an image is damaged",
                    "bring the catalog back from the pool: holdfast catalog rebuild",
                ) from error
            catalog.record_image(note, note.pool)
            then(note)
            path.unlink(missing_ok=True)

    def tidy_up(self) -> None:
        """Throw away what was half written by processes that were killed over it."""
        remove_unfinished(self._directory)

    def notes(self) -> list[Path]:
        """The notes that are there, by the ids of their images."""
        return sorted(self._directory.glob(f"[0-9a-f]*{_SUFFIX}"))

    def forget(self, notes: list[Path], then: Callable[[Note], None] = lambda _note: None) -> None:
        """Throw notes away, damaged ones as well, as the catalog has what they say of images.

        Args:
            notes: Which.
            then: Takes one that can be understood before it goes, as `hand_over` says.
        """
        for path in notes:
            try:
                note = Note(**json.loads(path.read_bytes()))
            except (OSError, ValueError, TypeError):
                note = None
            if note is not None:
                then(note)
            path.unlink(missing_ok=True)
