"""What qemu's programs say when they fail, as errors with the true cause.

Must not run anything. Their messages are read in English: whoever runs them sees to that.
"""

from __future__ import annotations

import re

from holdfast.base.errors import (
    Busy,
    DiskUnreadable,
    HoldfastError,
    NoPermission,
    NoSpace,
    NotFound,
    Unsupported,
)

_START_OF_LINE = re.compile(r"^qemu-(nbd|img)(\.exe)?: (warning: )?", re.MULTILINE)
_QUOTED = re.compile(r"Could not open '([^']+)'")


def true_cause(said: str, what: str) -> HoldfastError:
    """The error that messages of `qemu-nbd` or `qemu-img` stand for.

    Args:
        said: All that the program wrote to standard error.
        what: The disk that it was about.
    """
    text = " ".join(_START_OF_LINE.sub("", said).split())
    text = "".join(one if one.isprintable() else " " for one in text)
    for pattern, kind, message, hint in _CAUSES:
        if re.search(pattern, text):
            return kind(message.format(what=what, file=_file(text, what), said=_short(text)), hint)
    return DiskUnreadable(f"{what} can't be opened: {_short(text)}")


_CAUSES: tuple[tuple[str, type[HoldfastError], str, str | None], ...] = (
    (
        r"Failed to get .* lock|Is another process using the image",
        Busy,
        "{what} is in use by another program, such as a machine that runs",
        "shut the machine down, or back it up through its hypervisor, which can freeze it",
    ),
    (
        r"Could not open backing file.*No such file",
        NotFound,
        "{what} lies over a file that is missing: {file}",
        "bring that file back to where it was; without it the disk has no content",
    ),
    (
        r"No such file or directory",
        NotFound,
        "{what} needs a file that is missing: {file}",
        "see whether it was moved, or a file system is not mounted",
    ),
    (
        r"Permission denied|Operation not permitted",
        NoPermission,
        "this user may not open {file}, which {what} needs",
        "run as a user who may, or give it the right to",
    ),
    (
        r"No space left|Disk quota exceeded",
        NoSpace,
        "there is no room for {what}: {said}",
        None,
    ),
    (
        r"encrypt\.|luks|LUKS|key-secret|[Pp]assword",
        Unsupported,
        "{what} is encrypted by qemu, and its key is not known here: {said}",
        "back it up through its hypervisor, which has the key, or with an agent in the guest",
    ),
    (
        r"Unknown driver|Unknown protocol|[Uu]nknown file format",
        Unsupported,
        "qemu's programs on this machine do not know the format of {what}: {said}",
        "install all of qemu's block drivers: Debian's package qemu-block-extra",
    ),
    (
        r"[Uu]nsupported|not supported|does not support",
        Unsupported,
        "{what} is of a kind that qemu can't read: {said}",
        None,
    ),
    (
        r"too short|[Tt]runcated|end of file|beyond file end",
        DiskUnreadable,
        "{what} is truncated: {said}",
        "its file is shorter than it says itself; copy it again from where it is whole",
    ),
    (
        r"not in .* format|[Ii]nvalid|corrupt|[Bb]ad |signature|Could not read",
        DiskUnreadable,
        "{what} is damaged, or not of the format that it is said to have: {said}",
        "look at it with: qemu-img check",
    ),
)


def _file(text: str, what: str) -> str:
    """The innermost file that a message names."""
    found = [one for one in _QUOTED.findall(text) if not one.startswith("json:")]
    return found[-1] if found else what


def _short(text: str) -> str:
    """A message without the description of the whole block node."""
    text = re.sub(r"(Failed to blk_new_open|Could not open) 'json:.*?}': ", "", text)
    return text[:500]
