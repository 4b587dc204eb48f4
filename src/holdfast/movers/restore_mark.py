"""A file that says which job a directory is being restored by.

Must not restore. A restore that was cut off is done again into what it left behind, and into
nothing else: a directory that has no mark of this job has to be empty, at whichever attempt.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import storage_error
from holdfast.movers.restore_run import require_empty

if TYPE_CHECKING:
    from holdfast.base.errors import StorageError
    from holdfast.movers.restore_run import Overwrite

PREFIX = b".holdfast-restore-"


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """The mark of one job in one directory.

    Attributes:
        target: The directory; made if it is missing.
        job: The number of the job.
    """

    target: bytes
    job: int

    @property
    def path(self) -> bytes:
        """Where the mark is."""
        return os.path.join(self.target, PREFIX + b"%d" % self.job)

    def claim(self) -> Overwrite:
        """Make sure that the directory is this job's, before anything is written into it.

        Returns:
            What becomes of names that are there: they are this job's own, if there are any.

        Raises:
            TargetNotEmpty: Something is there that is not this job's.
            HoldfastError: The directory can't be made, or written to.
        """
        try:
            if os.path.lexists(self.path):
                return "always"
            require_empty(self.target)
            os.makedirs(self.target, exist_ok=True)
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._failed("mark", error) from error
        return "never"

    def remove(self) -> None:
        """Say that the restore is complete; the directory's own times stay what they are.

        Raises:
            HoldfastError: The mark can't be removed.
        """
        try:
            before = os.stat(self.target)
            try:
                os.unlink(self.path)
            except PermissionError:
                # The image may have it read-only, and it may be ours all the same.
                os.chmod(self.target, stat.S_IMODE(before.st_mode) | stat.S_IRWXU)
                os.unlink(self.path)
                os.chmod(self.target, stat.S_IMODE(before.st_mode))
            os.utime(self.target, ns=(before.st_atime_ns, before.st_mtime_ns))
        except OSError as error:
            raise self._failed("remove the mark from", error) from error

    def _failed(self, what: str, error: OSError) -> StorageError:
        shown = self.target.decode("utf-8", "backslashreplace")
        return storage_error(error)(f"can't {what} '{shown}': {error.strerror}")
