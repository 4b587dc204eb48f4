"""What went wrong with a file, in plain words, and whether it matters.

Must not look at single files. The words are the same for all of one cause, so that events can be
counted and filtered by them. It matters if something that was wanted is not in the image, or not
where it was restored to; what was deleted meanwhile is not missing from anything.
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.control.jobs.job import Remark, Severity


class _Cause(NamedTuple):
    words: str
    matters: bool


_CAUSES = {
    "no-permission": _Cause("no permission", True),
    "in-use": _Cause("in use by another program", True),
    "vanished": _Cause("vanished between scan and read", False),
    "changed-while-read": _Cause("changed while it was read", True),
    "stale": _Cause("its file server does not know it any more", True),
    "network-name-not-found": _Cause("network name not found", True),
    "input-output": _Cause("the device or server failed", True),
    "damaged-file-system": _Cause("the file system is damaged", True),
    "encrypted": _Cause("its encryption key is not loaded", True),
    "too-many-open-files": _Cause("too many files are open", True),
    "xattr-unreadable": _Cause("an attribute can't be read", True),
    "previous-unreadable": _Cause("the previous image can't be read", False),
    "index-not-merged": _Cause("the index was not tidied up", False),
    "illegal-name": _Cause("its name can't be used here", True),
    "in-the-way": _Cause("something else is in the way", True),
    "destination-changed": _Cause("somebody changed the destination meanwhile", True),
    "owner-not-restored": _Cause("its owner was not restored", True),
    "mode-not-restored": _Cause("its permissions were not restored", True),
    "time-not-restored": _Cause("its time was not restored", False),
    "xattr-not-restored": _Cause("an attribute was not restored", True),
    "hard-link-not-restored": _Cause("its hard link was not restored", True),
    "damaged": _Cause("stored data is damaged", True),
    "chunk-damaged": _Cause("stored data is damaged", True),
    "chunk-missing": _Cause("stored data is missing", True),
    "pack-damaged": _Cause("stored data is damaged", True),
    "pack-missing": _Cause("stored data is missing", True),
}


def remark(severity: str, code: str, message: str, path: bytes | None) -> Remark:
    """What the event log is to say of something that a worker found.

    Args:
        severity: ``info``, ``warning`` or ``error``; what is not known here counts as an error.
        code: Stable word for the cause; of one that is not known here, its words are made.
        message: One sentence.
        path: The file, as its bytes; None if it is about the job.
    """
    known = Severity(severity) if severity in set(Severity) else Severity.ERROR
    cause = _CAUSES.get(code)
    if cause is None:
        cause = _Cause(code.replace("-", " "), known is Severity.ERROR)
    return Remark(known, cause.words, message, cause.matters, path)
