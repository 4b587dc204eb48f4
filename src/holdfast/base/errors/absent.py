"""Errors of what is named and not there.

Must not know of others: see the package.
"""

from __future__ import annotations

from holdfast.base.errors.root import HoldfastError, Retry


class NotFound(HoldfastError):
    """What was asked for is not there."""

    code = "not-found"
    advice = "check the spelling"


class ImageMissing(NotFound):
    """No such image in the pool or the catalog."""

    code = "image-missing"
    advice = "'holdfast images' lists what there is"


class PathMissing(NotFound):
    """No such path in an image, or on this machine."""

    code = "path-missing"
    advice = "'holdfast ls IMAGE:PATH' and 'holdfast find' show what there is"


class JobMissing(NotFound):
    """The site has no such job."""

    code = "job-missing"
    advice = "list them with: holdfast jobs list"


class PolicyMissing(NotFound):
    """The site has no such policy."""

    code = "policy-missing"
    advice = "list them with: holdfast policy list"


class MachineMissing(NotFound):
    """The hypervisor has no such virtual machine."""

    code = "machine-missing"
    advice = "see whether it was deleted, or runs on another host"


class UploadMissing(NotFound):
    """The media server has no such upload for who asks, or gave it up."""

    code = "upload-missing"
    retry = Retry.SAME_TARGET
    advice = "run the job again: what was sent is kept, and is not sent twice"


class ObjectMissing(NotFound):
    """The store has no object of this key."""

    code = "object-missing"
    retry = Retry.OTHER_TARGET
    advice = "see what is affected with 'holdfast pool check'"
