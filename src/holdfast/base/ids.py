"""Identifiers as types of their own, and how people write them.

Must not look anything up: resolving a prefix needs a catalog. Invariant: a value of one of
these types has been through its parser, so it is well formed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NewType

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

ImageId = NewType("ImageId", str)
"""One backup's result: 32 lower-case hexadecimal digits."""

CopyId = NewType("CopyId", str)
"""One stored instance of an image: 32 lower-case hexadecimal digits."""

PoolId = NewType("PoolId", str)
"""A pool: 32 lower-case hexadecimal digits."""

ClientName = NewType("ClientName", str)
"""The name of a protected machine."""

SourceName = NewType("SourceName", str)
"""What an image is of: ``client:path1,path2``; its images follow each other."""

PolicyName = NewType("PolicyName", str)
"""The name of a policy."""

ADHOC = PolicyName("adhoc")
"""The policy of commands that are given by hand; no policy of a site may be called so."""

DEFAULT_STORAGE_UNIT = "default"
"""The storage unit that every site has: the pool that it began with."""

JobId = NewType("JobId", int)
"""One job of the site; later ones have higher numbers, and none is given twice."""

LATEST = "latest"
"""The word that names the newest image."""

PLAIN_NAME_HINT = "use a-z, 0-9, '.', '_' and '-', a letter or digit first, 63 characters at most"

_MACHINE = "machine:"
_HEX_32 = re.compile(r"[0-9a-f]{32}")
_HEX_PREFIX = re.compile(r"[0-9a-f]{1,32}")
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def image_id(text: str) -> ImageId:
    """Parse a full image id.

    Raises:
        Invalid: It is not 32 hexadecimal digits.
    """
    return ImageId(_hex_32(text, "image id"))


def copy_id(text: str) -> CopyId:
    """Parse a full copy id.

    Raises:
        Invalid: It is not 32 hexadecimal digits.
    """
    return CopyId(_hex_32(text, "copy id"))


def pool_id(value: bytes) -> PoolId:
    """Name a pool by the 16 bytes of its header.

    Raises:
        Invalid: It is not 16 bytes long.
    """
    if len(value) != 16:
        raise Invalid(f"a pool id has 16 bytes, not {len(value)}")
    return PoolId(value.hex())


def client_name(text: str) -> ClientName:
    """Parse the name of a protected machine.

    Raises:
        Invalid: It is empty, or has white space, ``:`` or ``,`` in it.
    """
    if not text or re.search(r"[\s:,]", text):
        raise Invalid(
            f"'{text}' can't be the name of a client",
            "use a host name: no white space, no ':' and no ','",
        )
    return ClientName(text)


def is_plain_name(text: str) -> bool:
    """Tell whether a text can name a policy, a schedule, a selection or a storage unit."""
    return _PLAIN_NAME.fullmatch(text) is not None


def policy_name(text: str) -> PolicyName:
    """Parse the name of a policy. Whether it is reserved is not looked at.

    Raises:
        Invalid: It is not made of the characters that it may have.
    """
    if not is_plain_name(text):
        raise Invalid(f"'{text}' can't be the name of a policy", PLAIN_NAME_HINT)
    return PolicyName(text)


def client_key_wanted(text: str) -> str:
    """Parse what names a client key: its name on a machine, or its id.

    Raises:
        Invalid: It is neither.
    """
    if not is_plain_name(text):
        raise Invalid(f"'{text}' can't be the name of a client key, nor its id", PLAIN_NAME_HINT)
    return text


def source_name(client: ClientName, paths: Iterable[bytes]) -> SourceName:
    """Name what is backed up: the images of one name follow each other.

    Args:
        client: The machine.
        paths: Absolute, in their order; bytes that are not UTF-8 are escaped.
    """
    listed = ",".join(path.decode("utf-8", "backslashreplace") for path in paths)
    return SourceName(f"{client}:{listed}")


def machine_source(uuid: str) -> SourceName:
    """The source of a virtual machine; no path begins so, so that it is no client's."""
    return SourceName(f"{_MACHINE}{uuid}")


def machine_of(source: str) -> str | None:
    """The uuid of the virtual machine that a source is of; None for files."""
    rest = source.removeprefix(_MACHINE)
    return rest if rest != source and not rest.startswith("/") else None


_STREAM = re.compile(r"([^:]+):split-([0-9]+)\.(?:stream-([0-9]+)|rest):(.*)", re.DOTALL)


class StreamOf(NamedTuple):
    """What a source is one of several streams of.

    Attributes:
        client: Whose path.
        split: The number of its split.
        path: What is divided.
        number: Which of the named streams, from 1 on; None for the rest.
    """

    client: str
    split: int
    path: str
    number: int | None

    @property
    def whole(self) -> tuple[str, int, str]:
        """What is the same of all its streams."""
        return self.client, self.split, self.path


def stream_of(source: str) -> StreamOf | None:
    """What a source is a stream of; None if it is none."""
    found = _STREAM.fullmatch(source)
    if found is None:
        return None
    client, split, number, path = found.groups()
    return StreamOf(client, int(split), path, None if number is None else int(number))


FILES_OF = ":files:"
"""What the source of an index of files inside of machines begins with: no client is called so."""


def files_source(source: SourceName) -> SourceName:
    """Name the source of indexes of what is inside of a source's images."""
    return SourceName(FILES_OF + source)


def source_of_files(source: SourceName) -> SourceName:
    """The source that `files_source` was given; any other one as it is."""
    return SourceName(source.removeprefix(FILES_OF))


def is_image_prefix(text: str) -> bool:
    """Tell whether a text can be the beginning of an image id."""
    return _HEX_PREFIX.fullmatch(text.lower()) is not None


@dataclass(frozen=True, slots=True)
class ImagePath:
    """What a person wrote as ``IMAGE[:PATH]``, taken apart and not yet looked up.

    Attributes:
        image: An id, a prefix of one, or `LATEST`.
        path: Absolute path inside the image, as bytes; ``b"/"`` for the root.
    """

    image: str
    path: bytes


def parse_image_path(text: str) -> ImagePath:
    """Take ``IMAGE`` or ``IMAGE:PATH`` apart.

    The path is made absolute and lexically clean: ``latest:etc//hosts/`` names ``/etc/hosts``.

    Raises:
        Invalid: There is no image before the colon, or the path climbs with ``..``.
    """
    image, _, path = text.partition(":")
    if not image:
        raise Invalid(
            f"'{text}' names no image",
            "write IMAGE or IMAGE:PATH, for example latest:/etc/hosts",
        )
    return ImagePath(image, clean_path(path.encode("utf-8", "surrogateescape")))


def clean_path(path: bytes) -> bytes:
    """Make a path inside an image absolute, with single slashes and none at the end.

    Raises:
        Invalid: It climbs with ``..`` or holds a NUL byte.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in path:
        shown = path.decode("utf-8", "backslashreplace")
        raise Invalid(f"'{shown}' is not a path inside an image", "write it without '..'")
    return b"/" + b"/".join(parts)


def _hex_32(text: str, what: str) -> str:
    lowered = text.lower()
    if _HEX_32.fullmatch(lowered) is None:
        raise Invalid(f"'{text}' is not an {what}: it has 32 hexadecimal digits")
    return lowered
