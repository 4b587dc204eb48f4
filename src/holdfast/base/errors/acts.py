"""Errors of what is asked for and can't be done, by this one, or now.

Must not know of others: see the package.
"""

from __future__ import annotations

from holdfast.base.errors.root import HoldfastError, Retry


class AccessError(HoldfastError):
    """Who asks is not let in."""

    code = "access"
    advice = "ask an administrator of the site"


class NotAuthenticated(AccessError):
    """Nobody knows who asks: no token, or one that is not valid."""

    code = "not-authenticated"
    advice = "log in, or give a token that is valid: HOLDFAST_TOKEN"


class Forbidden(AccessError):
    """Who asks is known, and may not do that."""

    code = "forbidden"
    advice = "ask an administrator of the site for a role, or for clients, that include it"


class TooManyAttempts(AccessError):
    """Too many logins failed; the next has to wait."""

    code = "too-many-attempts"
    retry = Retry.SAME_TARGET
    advice = "wait, then try again"
    wait_s: float | None = None
    """How long, if whoever raises it knows."""


class AlreadyExists(HoldfastError):
    """Something of this name is there already."""

    code = "already-exists"
    advice = "choose another name"


class EditConflict(HoldfastError):
    """Somebody else changed it meanwhile."""

    code = "edit-conflict"
    advice = "look at what it is now, and make your change again"


class ImageProtected(HoldfastError):
    """A hold or a lock keeps an image from what was asked."""

    code = "image-protected"
    advice = "'holdfast images' shows what is held or locked"


class ClockDoubtful(HoldfastError):
    """The clock jumped, or contradicts what is stored: nothing may be judged by it."""

    code = "clock-doubtful"
    advice = "set the clock right, then run the same command again"


class CommandFailed(HoldfastError):
    """What a policy wants run before or after a backup failed.

    Attributes:
        cut_off: Whether it was killed, as it took too long, and could not tidy up.
    """

    cut_off: bool = False

    code = "command-failed"
    retry = Retry.SAME_TARGET
    advice = "what it said is among the events of the job"


class TargetNotEmpty(HoldfastError):
    """A restore would mix with what is in its target already."""

    code = "target-not-empty"
    advice = "choose an empty or new directory"


class WrongState(HoldfastError):
    """What was asked can't be done to something in the state in which it is."""

    code = "wrong-state"
    advice = "look at its state first"


class WorkerLost(HoldfastError):
    """Nothing was heard of a job's worker for too long."""

    code = "worker-lost"
    retry = Retry.SAME_TARGET
    advice = "look whether the machine that did the work is up and can reach the master server"


class Fenced(HoldfastError):
    """This job was declared dead while it worked, and may commit nothing."""

    code = "fenced"
    retry = Retry.SAME_TARGET
    advice = "run the same command again"


class Busy(HoldfastError):
    """Something else is at work on the same thing."""

    code = "busy"
    retry = Retry.SAME_TARGET
    advice = "wait until that is done, then run the same command again"


class DoesNotBoot(HoldfastError):
    """A machine that was booted from its image did not do in time what was waited for."""

    code = "does-not-boot"
    advice = "look at what its screen showed, and whether the original boots"


class HypervisorError(HoldfastError):
    """What runs the virtual machines failed."""

    code = "hypervisor"
    retry = Retry.SAME_TARGET
    advice = "look at the log of the hypervisor, then run the same command again"


class HypervisorRefused(HypervisorError):
    """A hypervisor answered a command with an error.

    Attributes:
        reason: Its own words.
    """

    code = "hypervisor-refused"

    def __init__(self, message: str, hint: str | None = None, reason: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


class NotQuiesced(HypervisorError):
    """A guest's file systems could not be brought to rest, and that was asked for."""

    code = "not-quiesced"
    advice = "see that the guest agent runs in the machine, or let the policy do without it"


class SnapshotBroken(HypervisorError):
    """What is read of a machine is no longer the moment at which it was frozen."""

    code = "snapshot-broken"
    advice = "give the scratch directory more room, or run it when the machine writes less"


class Unsupported(HoldfastError):
    """This machine, store or build can't do that."""

    code = "unsupported"
    advice = "use another machine, store or build"


class LibraryMissing(Unsupported):
    """A library that this takes is not installed on this machine."""

    code = "library-missing"
    advice = "install it, then run the same command again"
