"""A connection to libvirt, made anew when it was lost; its errors in words that name the cause.

Must not know what is asked. Invariant: nothing of libvirt's own errors gets past `asked`.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Any

import libvirt

from holdfast.base.errors import (
    Forbidden,
    HypervisorError,
    Invalid,
    MachineMissing,
    NoPermission,
    NotAuthenticated,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.errors import HoldfastError
    from holdfast.sources.machines.providers import Credentials

_WRONG_WORDS = "give a user and a password that this libvirt knows"
_MAY_NOT = (
    "use a user who may manage machines: of the group 'libvirt', or root; a read-only connection "
    "is not enough"
)
_CODES: dict[int, tuple[type[HoldfastError], str | None]] = {
    libvirt.VIR_ERR_NO_DOMAIN: (MachineMissing, None),
    libvirt.VIR_ERR_AUTH_FAILED: (NotAuthenticated, _WRONG_WORDS),
    libvirt.VIR_ERR_AUTH_CANCELLED: (NotAuthenticated, _WRONG_WORDS),
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: (NotAuthenticated, _WRONG_WORDS),
    libvirt.VIR_ERR_OPERATION_DENIED: (Forbidden, _MAY_NOT),
    libvirt.VIR_ERR_ACCESS_DENIED: (Forbidden, _MAY_NOT),
    libvirt.VIR_ERR_NO_CONNECT: (Invalid, "write it as libvirt does: qemu:///system"),
    libvirt.VIR_ERR_INVALID_CONN: (Unreachable, "see that libvirtd runs on the host"),
    libvirt.VIR_ERR_NO_SUPPORT: (HypervisorError, "use a newer libvirt: 7.2 at least"),
}


class Libvirt:
    """A connection that is made when it is needed. Thread-safe."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        """Name the host; nobody is asked."""
        self.url = url
        self._credentials = credentials
        self._lock = threading.Lock()
        self._connection: Any = None

    def get(self) -> Any:
        """The connection.

        Raises:
            HoldfastError: It can't be made; why.
        """
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    if self._connection.isAlive() and self._connection.getLibVersion():
                        return self._connection
                self._connection = None
            libvirt.registerErrorHandler(_quiet, None)
            with asked(f"libvirt at '{self.url}' can't be reached"):
                kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
                self._connection = libvirt.openAuth(self.url, [kinds, self._answer, None], 0)
            return self._connection

    def domain(self, uuid: str) -> Any:
        """A machine.

        Raises:
            MachineMissing: There is none of that uuid.
        """
        connection = self.get()
        with asked(f"machine {uuid} at '{self.url}'"):
            return connection.lookupByUUIDString(uuid)

    def _answer(self, wanted: list[list[Any]], _: Any) -> int:
        for one in wanted:
            name = one[0] == libvirt.VIR_CRED_AUTHNAME
            one[4] = self._credentials.user if name else self._credentials.password
        return 0


@contextlib.contextmanager
def asked(what: str) -> Iterator[None]:
    """Put an error of libvirt into ours.

    Args:
        what: What was asked, or went wrong; the cause is put behind it.

    Raises:
        HoldfastError: Of the class that fits.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        raise translated(error, what) from error


def translated(error: Any, what: str) -> HoldfastError:
    """Our error for one of libvirt's."""
    code, said = error.get_error_code(), _said(error)
    if code in _CODES:
        kind, hint = _CODES[code]
        return kind(f"{what}: {said}", hint)
    number = error.get_int1() if code == libvirt.VIR_ERR_SYSTEM_ERROR else 0
    if number in (errno.EACCES, errno.EPERM):
        return NoPermission(f"{what}: {said}", _MAY_NOT)
    if number in (errno.ENOENT, errno.ECONNREFUSED):
        return Unreachable(f"{what}: {said}", "see that libvirtd runs, and that the URL is right")
    if error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE) or number:
        return Unreachable(f"{what}: {said}", "see that libvirtd runs there, and the network")
    return HypervisorError(f"{what}: {said}")


def thaw_at(url: str, uuid: str) -> None:
    """Wake a guest, for a backup that died while it stood still.

    Raises:
        HoldfastError: Nobody answers.
    """
    with asked(f"machine {uuid} at '{url}'"):
        libvirt.registerErrorHandler(_quiet, None)
        domain = libvirt.open(url).lookupByUUIDString(uuid)
        domain.fsThaw()


def _said(error: Any) -> str:
    return str(error.get_error_message() or error)


def _quiet(_: object, __: object) -> None:
    """Errors are raised; libvirt writes them to standard error besides, unless it is told."""
