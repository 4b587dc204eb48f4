"""A session with a vCenter or an ESXi host; its errors in words that name the cause.

Must not know what is asked. Invariants: nothing of VMware's own errors gets past `asked`; nobody is
spoken to whose certificate is not believed; a session ends when its block does.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from xml.parsers.expat import ExpatError

from pyVim.connect import SmartStubAdapter
from pyVmomi import vim, vmodl

from holdfast.base.errors import (
    AlreadyExists,
    Busy,
    Forbidden,
    HoldfastError,
    HypervisorError,
    Invalid,
    MachineMissing,
    NoSpace,
    NotAuthenticated,
    NotFound,
    NotQuiesced,
    Unreachable,
    Unsupported,
    WrongState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.machines.providers import Credentials

ANSWER_S = 120.0
"""How long one answer may take; what takes longer is a task, which is asked about."""
_CONNECT_S = 20.0
_SHA256_DIGITS = 64

_RIGHTS = "give the user the rights that the guide 'VMware' lists"
_FAULTS: tuple[tuple[type[Exception], type[HoldfastError], str | None], ...] = (
    (vim.fault.InvalidLogin, NotAuthenticated, "give a user and a password that it knows"),
    (vmodl.fault.SecurityError, Forbidden, _RIGHTS),
    (vmodl.fault.ManagedObjectNotFound, MachineMissing, "look again: it was removed meanwhile"),
    (vim.fault.ApplicationQuiesceFault, NotQuiesced, "see the guest's own log"),
    (vim.fault.SnapshotFault, HypervisorError, None),
    (vim.fault.NoDiskSpace, NoSpace, "free space in the datastore"),
    (vim.fault.InsufficientResourcesFault, NoSpace, None),
    (vim.fault.FileAlreadyExists, AlreadyExists, "give the machine another name"),
    (vim.fault.DuplicateName, AlreadyExists, "give the machine another name"),
    (vim.fault.FileNotFound, NotFound, "see in the datastore browser whether the file is there"),
    (vim.fault.TaskInProgress, Busy, "wait until that has ended"),
    (vim.fault.InvalidState, WrongState, None),
    (vmodl.fault.NotSupported, Unsupported, None),
    (vmodl.fault.MethodNotFound, Unsupported, None),
    (vmodl.fault.InvalidArgument, HypervisorError, None),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a vCenter or a host is.

    Attributes:
        host: Its name or address.
        port: Of HTTPS.
        thumbprint: SHA-256 of the one certificate that is believed, 64 digits; empty for any that
            a trusted authority vouches for.
    """

    host: str
    port: int = 443
    thumbprint: str = ""

    def __str__(self) -> str:
        """As messages name it."""
        return self.host if self.port == 443 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Session:
    """One that is open.

    Attributes:
        place: With whom.
        content: What the whole interface hangs on.
        cookie: What shows to the same host's other interfaces that it is open.
        context: How its certificate is judged.
    """

    place: Place
    content: Any
    cookie: str
    context: ssl.SSLContext


def place_of(url: str) -> Place:
    """Parse where a vCenter is.

    Raises:
        Invalid: It is no such URL.
    """
    example = "write it like https://vcenter.example.com, with the name in its certificate"
    wrong = Invalid(f"'{url}' is not the address of a vCenter or ESXi host", example)
    try:
        parts = urlsplit(url)
        port = parts.port or 443
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise wrong from error
    if parts.username is not None or parts.password is not None:
        raise Invalid("an address has no user in it", "use --user, and the password is asked for")
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/", "/sdk"):
        raise wrong
    if set(query) - {"thumbprint"} or parts.fragment:
        raise wrong
    thumbprint = query.get("thumbprint", [""])[-1].replace(":", "").lower()
    digits = all(one in "0123456789abcdef" for one in thumbprint)
    if "thumbprint" in query and (len(thumbprint) != _SHA256_DIGITS or not digits):
        raise Invalid(
            "that is not the SHA-256 thumbprint of a certificate, which has 64 digits",
            f"openssl s_client -connect {parts.hostname}:{port} </dev/null | "
            "openssl x509 -noout -fingerprint -sha256",
        )
    return Place(parts.hostname, port, thumbprint)


class VCenter:
    """A vCenter or a host, and what opens it. Thread-safe."""

    def __init__(self, place: Place, credentials: Credentials) -> None:
        """Name it; nobody is asked."""
        self.place = place
        self._credentials = credentials

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Have a session, for the time of the block.

        Raises:
            NotAuthenticated: It does not know the user, or not with that password.
            Unreachable: Nobody answers there, or one whose certificate is not believed.
        """
        with asked(f"'{self.place}' tells nothing of itself", self.place):
            context = _context(self.place, self._credentials)
            stub = SmartStubAdapter(
                host=self.place.host,
                port=self.place.port,
                sslContext=context,
                httpConnectionTimeout=ANSWER_S,
            )
        try:
            what = f"'{self.place}' does not let user '{self._credentials.user}' in"
            with asked(what, self.place):
                content: Any = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
                content.sessionManager.Login(self._credentials.user, self._credentials.password)
            try:
                yield Session(self.place, content, stub.cookie.partition(";")[0], context)
            finally:
                with contextlib.suppress(vmodl.MethodFault, OSError, http.client.HTTPException):
                    content.sessionManager.Logout()
        finally:
            stub.DropConnections()


@contextlib.contextmanager
def asked(what: str, place: Place) -> Iterator[None]:
    """Put an error of VMware's into ours.

    Args:
        what: What was asked, or went wrong; the cause is put behind it.
        place: Who was asked.

    Raises:
        HoldfastError: Of the class that fits.
    """
    where = f"'{place}'"
    try:
        yield
    except HoldfastError:
        raise
    except vmodl.MethodFault as error:
        raise translated(error, what) from error
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            f"the certificate of {where} is not believed: {error.verify_message}",
            "give the authority's with --certificate-file, or pin the certificate itself: "
            "--at 'https://…/?thumbprint=SHA-256'",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise Unreachable(
            f"{where} can't be reached: {said or type(error).__name__}",
            "see that it runs, and that the network between lets HTTPS through",
        ) from error
    except ExpatError as error:
        raise _not_one(where) from error
    except Exception as error:
        # The one that the library raises of no class of its own.
        if "is not a VIM server" in str(error):
            raise _not_one(where) from error
        raise


def translated(error: Any, what: str) -> HoldfastError:
    """Our error for one of VMware's."""
    said = _said(error)
    for known, kind, hint in _FAULTS:
        if isinstance(error, known):
            return kind(f"{what}: {said}", hint)
    return HypervisorError(f"{what}: {said}")


def _said(error: Any) -> str:
    if isinstance(error, vim.fault.NoPermission):
        return f"the user has not the right '{error.privilegeId}'"
    said = str(getattr(error, "msg", "") or "").strip()
    more = [str(one.message) for one in getattr(error, "faultMessage", None) or () if one.message]
    name = type(error).__name__.rpartition(".")[2]
    if file := str(getattr(error, "file", "") or ""):
        more.insert(0, f"file '{file}'")
    return "; ".join([said or name, *more])


def _not_one(where: str) -> Unreachable:
    return Unreachable(
        f"{where} answers, and is no vCenter or ESXi host",
        "correct the address or the port: the host is named without a path",
    )


def _context(place: Place, credentials: Credentials) -> ssl.SSLContext:
    """How the certificate is judged: by authorities, or by being the one that was pinned."""
    if not place.thumbprint:
        try:
            return ssl.create_default_context(cadata=credentials.certificate or None)
        except ssl.SSLError as error:
            raise Invalid(f"that is no certificate in PEM: {error.reason or error}") from error
    found = _certificate_of(place)
    if (shown := hashlib.sha256(found).hexdigest()) != place.thumbprint:
        raise Unreachable(
            f"the certificate of '{place}' is not the one that was pinned: its SHA-256 is {shown}",
            "if it was renewed, pin the new one: 'holdfast hypervisor set' has --at",
        )
    context = ssl.create_default_context(cadata=found)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _certificate_of(place: Place) -> bytes:
    """The certificate that is shown there; nothing is said to who shows it."""
    looking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    looking.check_hostname = False
    looking.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((place.host, place.port), timeout=_CONNECT_S) as plain,
        looking.wrap_socket(plain, server_hostname=place.host) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True) or b""
