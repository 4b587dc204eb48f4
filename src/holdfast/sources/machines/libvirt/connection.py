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
    Unsupported,
)
from holdfast.sources.machines.libvirt.address import parse
from holdfast.sources.machines.libvirt.there import There, look
from holdfast.sources.machines.libvirt.tunnel import Tunnel, not_forwarded

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
        """Name the host; nobody is asked.

        Raises:
            Invalid: The URL is none of libvirt's.
        """
        self.url = url
        self.address = parse(url)
        self.credentials = credentials
        self._lock = threading.RLock()
        self._connection: Any = None
        self._tunnel: Tunnel | None = None
        self._there: There | None = None

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
            url = self._url()
            try:
                with asked(f"libvirt at '{self.url}' can't be reached"):
                    kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
                    self._connection = libvirt.openAuth(url, [kinds, self._answer, None], 0)
            except Unreachable as error:
                raise self._unanswered(error) from error
            return self._connection

    @property
    def tunnel(self) -> Tunnel:
        """The connection by ssh, of a host that is reached so.

        Raises:
            HoldfastError: It can't be made; why.
        """
        with self._lock:
            if self._tunnel is None or not self._tunnel.lives():
                if self._tunnel is not None:
                    self._tunnel.close()
                self._tunnel = self._there = None
                self._tunnel = Tunnel(self.address)
            return self._tunnel

    def there(self) -> There | None:
        """What a host that is reached by ssh told of itself; None for others.

        Raises:
            HoldfastError: It can't be reached.
        """
        if self.address.transport != "ssh":
            return None
        with self._lock:
            tunnel = self.tunnel
            if self._there is None:
                self._there = look(tunnel, self.address)
            return self._there

    def _unanswered(self, error: Unreachable) -> HoldfastError:
        """Why nobody answers; a socket that is forwarded does not tell."""
        found = self.there()
        if found is None:
            return error
        told = not_forwarded(self.tunnel, "libvirt", closed=found.found is None)
        if told is None and found.found is None:
            return Forbidden(
                f"'{self.tunnel.who}' may not use the socket '{found.socket}' there, or libvirt "
                "does not run",
                "be root there, or a member of the group 'libvirt', and see that libvirtd runs",
            )
        return told or error

    def _url(self) -> str:
        """What libvirt's library is given; over a socket of ours where that is reached by ssh."""
        if self.address.transport != "ssh":
            return self.address.url
        if self.address.mode != "system":
            raise Unsupported(
                f"'{self.url}' is a libvirt of one user, which is not reached from afar",
                "use qemu+ssh://HOST/system, or run an agent there",
            )
        tunnel, found = self.tunnel, self.there()
        assert found is not None  # noqa: S101 - by ssh, something is known
        if found.found is False:
            raise Unreachable(
                f"libvirt does not run on '{tunnel.who}': there is no socket '{found.socket}'",
                "start it there: systemctl start libvirtd, or name its socket: ?socket=PATH",
            )
        if not found.allowed:
            raise Forbidden(
                f"user '{found.user}' of '{self.address.host}' may not use its libvirt: "
                f"'{found.socket}' is closed to that user",
                "be root there, or a member of the group 'libvirt'",
            )
        scheme = self.address.url.partition("+")[0]
        return f"{scheme}+unix:///system?socket={tunnel.forward(found.socket)}"

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
            one[4] = self.credentials.user if name else self.credentials.password
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


def thaw_at(url: str, uuid: str, credentials: Credentials) -> None:
    """Wake a guest, for a backup that died while it stood still.

    Raises:
        HoldfastError: Nobody answers.
    """
    domain = Libvirt(url, credentials).domain(uuid)
    with asked(f"machine {uuid} at '{url}'"):
        domain.fsThaw()


def _said(error: Any) -> str:
    return str(error.get_error_message() or error)


def _quiet(_: object, __: object) -> None:
    """Errors are raised; libvirt writes them to standard error besides, unless it is told."""
