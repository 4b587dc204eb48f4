"""How a client and an NBD server agree on an export: fixed newstyle, without TLS.

Must not read a disk. Invariants: what a server may say is bounded in size, in number and in time;
when this is over, the socket is at the first byte of the transmission phase.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from holdfast.base.errors import Forbidden, HoldfastError, NotFound, Unreachable, Unsupported
from holdfast.sources.nbd import protocol
from holdfast.sources.nbd.protocol import Answer, Flags, Info, Option
from holdfast.sources.nbd.wire import babble

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.sources.nbd.wire import Wire

_LONGEST_ANSWER = 64 * 1024
_MOST_ANSWERS = 10_000
_LARGEST_DISK = 1 << 62


@dataclass(frozen=True, slots=True)
class Export:
    """What a server says of a disk that it has, and what was agreed on for this connection.

    Attributes:
        name: Of the export; empty for the default one.
        size: In bytes.
        flags: What it can do.
        minimum: Requests have to be aligned to this many bytes.
        maximum: No read or write may be longer.
        structured: Whether replies are structured ones.
        contexts: Numbers of the contexts whose block status can be asked for, by name.
    """

    name: str
    size: int
    flags: Flags
    minimum: int = 1
    maximum: int = 32 * 1024 * 1024
    structured: bool = False
    contexts: dict[str, int] = field(default_factory=dict)


def greet(wire: Wire) -> None:
    """Go through the greeting of both ends.

    Raises:
        Unsupported: It is not a server of this kind of protocol.
    """
    magic, option_magic, flags = wire.unpack(protocol.GREETING)
    if magic != protocol.NBDMAGIC:
        raise babble(wire.address, "it does not greet as one")
    if option_magic == protocol.OLD_STYLE or not flags & protocol.FIXED_NEWSTYLE:
        raise Unsupported(
            f"{wire.address} speaks an old form of the protocol",
            hint="use a server of the last ten years: qemu-nbd, nbdkit, nbd-server from 3.0 on",
        )
    if option_magic != protocol.IHAVEOPT:
        raise babble(wire.address, "it does not greet as one")
    answer = protocol.FIXED_NEWSTYLE | (flags & protocol.NO_ZEROES)
    wire.send(struct.pack(">I", answer))


def exports(wire: Wire) -> list[str]:
    """Names of the exports that a server tells of, after `greet`.

    Raises:
        Forbidden, Unsupported: It tells of none.
    """
    found = []
    _ask(wire, Option.LIST)
    for kind, data in _answers(wire, Option.LIST):
        if kind == Answer.SERVER:
            (length,) = struct.unpack_from(">I", data) if len(data) >= 4 else (len(data),)
            if length > len(data) - 4 or length > protocol.LONGEST_NAME:
                raise babble(wire.address, "the name of an export is longer than its answer")
            found.append(data[4 : 4 + length].decode(errors="surrogateescape"))
        elif kind & protocol.ERROR_ANSWER:
            _refuse(wire, Option.LIST, kind, data, "")
    return found


def leave(wire: Wire) -> None:
    """Say that nothing more is wanted, after `greet`."""
    _ask(wire, Option.ABORT)


def agree(
    wire: Wire, name: str, *, structured: bool = True, contexts: Sequence[str] = ()
) -> Export:
    """Have an export, after `greet`.

    Args:
        wire: Its connection.
        name: Of the export; empty for the default one.
        structured: Whether structured replies are wanted; the server may not have them.
        contexts: Whose block status is wanted; those that the server has are in the result.

    Raises:
        NotFound: There is no such export.
        Forbidden: The server does not give it out.
        Unsupported: The server wants TLS, or does not know a client of this kind.
    """
    if len(name.encode(errors="surrogateescape")) > protocol.LONGEST_NAME:
        raise NotFound(f"{wire.address} can have no export of such a long name")
    agreed = structured and _structured(wire)
    known = _contexts(wire, name, contexts) if agreed and contexts else {}
    return _go(wire, name, structured=agreed, contexts=known)


def _structured(wire: Wire) -> bool:
    _ask(wire, Option.STRUCTURED_REPLY)
    for kind, data in _answers(wire, Option.STRUCTURED_REPLY):
        if kind == Answer.TLS_REQUIRED:
            _refuse(wire, Option.STRUCTURED_REPLY, kind, data, "")
        return kind == Answer.ACK
    raise babble(wire.address, "it does not answer")  # pragma: no cover - answers end otherwise


def _contexts(wire: Wire, name: str, wanted: Sequence[str]) -> dict[str, int]:
    query = _string(name) + struct.pack(">I", len(wanted)) + b"".join(map(_string, wanted))
    _ask(wire, Option.SET_META_CONTEXT, query)
    found: dict[str, int] = {}
    for kind, data in _answers(wire, Option.SET_META_CONTEXT):
        if kind == Answer.META_CONTEXT:
            if len(data) < 4:
                raise babble(wire.address, "a context without a number")
            (number,) = struct.unpack_from(">I", data)
            context = data[4:].decode(errors="surrogateescape")
            if context not in wanted or number in found.values():
                raise babble(wire.address, f"a context that nobody asked for: {context[:80]!r}")
            found[context] = number
        elif kind == Answer.UNKNOWN:
            _refuse(wire, Option.SET_META_CONTEXT, kind, data, name)
    return found


def _go(wire: Wire, name: str, *, structured: bool, contexts: dict[str, int]) -> Export:
    wishes = (Info.BLOCK_SIZE,)
    query = _string(name) + struct.pack(f">H{len(wishes)}H", len(wishes), *wishes)
    _ask(wire, Option.GO, query)
    size, flags, minimum, maximum = None, Flags(0), 1, 32 * 1024 * 1024
    for kind, data in _answers(wire, Option.GO):
        if kind & protocol.ERROR_ANSWER:
            _refuse(wire, Option.GO, kind, data, name)
        if kind != Answer.INFO or len(data) < 2:
            continue
        (about,) = struct.unpack_from(">H", data)
        if about == Info.EXPORT and len(data) == 12:
            size, number = struct.unpack_from(">QH", data, 2)
            flags = Flags(number)
        elif about == Info.BLOCK_SIZE and len(data) == 14:
            minimum, _, maximum = struct.unpack_from(">III", data, 2)
    if size is None:
        raise babble(wire.address, "it does not tell the size of its export")
    if size > _LARGEST_DISK or not flags & Flags.HAS_FLAGS:
        raise babble(wire.address, f"an export of {size} bytes with flags {int(flags)}")
    if not 1 <= minimum <= 65536 or minimum & (minimum - 1) or maximum < max(minimum, 512):
        raise babble(wire.address, f"requests of {minimum} to {maximum} bytes")
    longest = min(maximum, 32 * 1024 * 1024) // minimum * minimum
    return Export(name, size, flags, minimum, longest, structured, contexts)


def _ask(wire: Wire, option: Option, data: bytes = b"") -> None:
    wire.send(protocol.OPTION.pack(protocol.IHAVEOPT, option, len(data)) + data)


def _answers(wire: Wire, option: Option) -> Iterator[tuple[int, bytes]]:
    """What the server says to an option, with the last of it: an acknowledgement or an error."""
    for _ in range(_MOST_ANSWERS):
        magic, about, kind, length = wire.unpack(protocol.OPTION_ANSWER)
        if magic != protocol.OPTION_REPLY or about != option:
            raise babble(wire.address, f"an answer to option {about} when {option} was asked")
        if length > _LONGEST_ANSWER:
            raise babble(wire.address, f"an answer of {length} bytes")
        yield kind, bytes(wire.receive(length))
        if kind == Answer.ACK or kind & protocol.ERROR_ANSWER:
            return
    raise babble(wire.address, f"more than {_MOST_ANSWERS} answers to one option")


def _refuse(wire: Wire, option: Option, kind: int, data: bytes, name: str) -> NoReturn:
    said = data[:500].decode(errors="replace").strip()
    said = "".join(one if one.isprintable() else " " for one in said)
    tail = f": {said}" if said else ""
    what = f"export '{name}'" if name else "its default export"
    errors: dict[int, tuple[type[HoldfastError], str, str | None]] = {
        Answer.UNKNOWN: (
            NotFound,
            f"{wire.address} has no {what.removeprefix('its ')}{tail}",
            "see what the server gives out, for example with: nbdinfo --list",
        ),
        Answer.POLICY: (Forbidden, f"{wire.address} does not give out {what}{tail}", None),
        Answer.TLS_REQUIRED: (
            Unsupported,
            f"{wire.address} wants TLS, which is not spoken here{tail}",
            "reach it over a UNIX socket, or through a tunnel",
        ),
        Answer.SHUTDOWN: (Unreachable, f"{wire.address} is shutting down{tail}", "start it again"),
    }
    error, message, hint = errors.get(
        kind,
        (Unsupported, f"{wire.address} refuses option {option.name} ({kind:#x}){tail}", None),
    )
    raise error(message, hint=hint)


def _string(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return struct.pack(">I", len(data)) + data
