"""What every error is, and those of words that are not understood.

Must not know of others: see the package.
"""

from __future__ import annotations

import enum
from typing import ClassVar

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_FAILED = 2
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130


class Retry(enum.Enum):
    """Whether doing the same again may help."""

    NEVER = "never"
    SAME_TARGET = "same target"
    OTHER_TARGET = "other target"


class HoldfastError(Exception):
    """A promise that could not be kept, in words for a person.

    Attributes:
        code: Stable name of this kind of error, for programs.
        exit_status: What a command ends with when it fails of this.
        retry: Whether doing the same again may help.
        message: One sentence that names the object and the numbers.
        hint: What the person can do about it: the one given, else the `advice` of the class.
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = EXIT_FAILED
    retry: ClassVar[Retry] = Retry.NEVER
    advice: ClassVar[str | None] = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.advice

    def __reduce__(self) -> tuple[type[HoldfastError], tuple[str, str | None]]:
        return type(self), (self.message, self.hint)


class UsageError(HoldfastError):
    """The command was given words it does not understand."""

    code = "usage"
    exit_status = EXIT_USAGE
    advice = "'holdfast COMMAND --help' explains a command, with examples"


class Invalid(UsageError):
    """A value is outside of what it may be."""

    code = "invalid"


class PolicyInvalid(Invalid):
    """A policy is not as it has to be.

    Attributes:
        faults: All that is wrong: where, what, and a hint if there is one.
    """

    code = "policy-invalid"
    advice = "'holdfast policy validate FILE' tells all that is wrong"
    faults: tuple[tuple[str, str, str | None], ...] = ()


class ImageAmbiguous(UsageError):
    """A prefix names more than one image."""

    code = "image-ambiguous"


class KeyReused(UsageError):
    """An idempotency key came again with another request."""

    code = "key-reused"
    advice = "make a new key for each act, and repeat a request as it was"


class TooLarge(UsageError):
    """A request is larger than what is taken."""

    code = "too-large"
    advice = "send less at once"


class InternalError(HoldfastError):
    """A defect in Holdfast itself."""

    code = "internal"
    advice = "this is a defect: please report it with what you did"


class Cancelled(HoldfastError):
    """Stopped because somebody asked for it."""

    code = "cancelled"
    exit_status = EXIT_INTERRUPTED
    retry = Retry.SAME_TARGET
    advice = "run the same command again to go on"
