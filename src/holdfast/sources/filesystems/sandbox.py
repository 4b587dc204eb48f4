"""Give up every right but to compute and to talk over what is open already.

Must not be used in a process that has anything else to do: there is no way back. Invariants: after
`confine` no file can be opened, no connection made, no program started, and memory and processor
time are bounded; where that can't be had, it raises.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from dataclasses import dataclass

NOBODY = 65534

_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER, _SET_DUMPABLE = 38, 22, 2, 4

# of struct seccomp_data: the number of the call, and the architecture
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


@dataclass(frozen=True, slots=True)
class _Machine:
    """Numbers of a kind of processor: `AUDIT_ARCH_…`, and of the calls that stay allowed."""

    architecture: int
    calls: tuple[int, ...]


# read write close fstat poll lseek mmap mprotect munmap brk rt_sigaction
# rt_sigprocmask rt_sigreturn mremap madvise getpid exit sigaltstack gettid futex clock_gettime
# exit_group getrandom
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        (0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 25, 28, 39, 60, 131, 186, 202, 228, 231, 318),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        (
            *(63, 64, 57, 80, 73, 62, 222, 226, 215, 214, 134, 135, 139, 216, 233, 172, 93, 132),
            *(178, 98, 113, 94, 278),
        ),
    ),
}


def confine(*, memory_bytes: int, cpu_s: int) -> None:
    """Confine this process, for good.

    Args:
        memory_bytes: Of its address space.
        cpu_s: Of processor time, after which it is killed.

    Raises:
        OSError: The kernel does not do it; the process must not go on.
    """
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_NOFILE, 0)
    _control(_SET_DUMPABLE, 0)
    _control(_SET_NO_NEW_PRIVS, 1)
    program = _program()
    _control(_SET_SECCOMP, _FILTER, program)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _program() -> object:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(f"there is no sandbox for processors of the kind {platform.machine()}")
    calls = machine.calls
    steps = [
        (_LOAD | 0, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, machine.architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD | 0, 0, 0, _NUMBER_AT),
        *((_EQUAL, len(calls) - at, 0, number) for at, number in enumerate(calls)),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    packed = b"".join(struct.pack("<HBBI", *one) for one in steps)
    return ctypes.byref(_Program(len(steps), packed))


def _control(*arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [*arguments, 0, 0, 0, 0][:5]
    values = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in padded]
    if libc.prctl(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refuses a sandbox: {os.strerror(number)}")
