"""What a certificate says of who has it.

Must not judge whether a certificate is genuine: TLS does, against the site's authority. Invariant:
of a certificate that says two things, or something that is not quite an address of a machine,
nothing is believed.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.hashes import SHA256

from holdfast.base.clock import to_ns
from holdfast.base.errors import Invalid, NotAuthenticated
from holdfast.base.ids import ClientName

if TYPE_CHECKING:
    from datetime import datetime

SCHEME = "holdfast"
_SITE_ID = re.compile(r"[0-9a-f]{32}")
_MACHINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ADDRESS = re.compile(rf"{SCHEME}://([^/]*)/([^/]*)/([^/]*)")


class MachineRole(enum.StrEnum):
    """What a machine is in its site."""

    MASTER = "master"
    MEDIA = "media"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection.

    Attributes:
        site_id: Of which site, 32 hexadecimal digits.
        role: What it is there.
        name: Its name, which is that of the client it protects.
        serial: Of its certificate, in hexadecimal digits.
        fingerprint: SHA-256 of the certificate, in hexadecimal digits.
        expires_ns: When the certificate ends, in ns since 1970.
    """

    site_id: str
    role: MachineRole
    name: ClientName
    serial: str
    fingerprint: str
    expires_ns: int


def machine_name(text: str) -> ClientName:
    """Parse the name of a machine of a site: narrower than that of a client.

    Raises:
        Invalid: It can't be one.
    """
    if _MACHINE_NAME.fullmatch(text) is None:
        raise Invalid(
            f"'{text[:80]}' can't be the name of a machine",
            "1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first",
        )
    return ClientName(text)


def address(site_id: str, role: MachineRole, name: str) -> str:
    """What a certificate says of who has it.

    Raises:
        Invalid: Something of it can't be.
    """
    if _SITE_ID.fullmatch(site_id) is None:
        raise Invalid(f"'{site_id[:80]}' is not the id of a site: it has 32 hexadecimal digits")
    return f"{SCHEME}://{site_id}/{MachineRole(role)}/{machine_name(name)}"


def identity_of(der: bytes) -> Peer:
    """Whom a certificate names.

    Args:
        der: A certificate that TLS has found to be of the authority.

    Raises:
        NotAuthenticated: It names nobody, or more than one.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise NotAuthenticated("the certificate names no machine of a site") from error
    found = [one.value for one in names if isinstance(one, x509.UniformResourceIdentifier)]
    matched = _ADDRESS.fullmatch(found[0]) if len(found) == 1 and len(list(names)) == 1 else None
    if matched is None or _SITE_ID.fullmatch(matched[1]) is None:
        raise NotAuthenticated("the certificate names no machine of a site")
    try:
        role, name = MachineRole(matched[2]), machine_name(matched[3])
    except (ValueError, Invalid) as error:
        raise NotAuthenticated("the certificate names no machine of a site") from error
    return Peer(
        site_id=matched[1],
        role=role,
        name=name,
        serial=serial_text(certificate.serial_number),
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        expires_ns=to_ns(certificate.not_valid_after_utc),
    )


def authority_fingerprint(pem: bytes) -> bytes:
    """SHA-256 of an authority's certificate.

    Raises:
        Invalid: It is no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(pem).fingerprint(SHA256())
    except ValueError as error:
        raise Invalid("this is no certificate of an authority") from error


def valid_between(pem: bytes) -> tuple[datetime, datetime]:
    """From when to when a certificate is good.

    Raises:
        Invalid: It is no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise Invalid("this is no certificate") from error
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def peer_of_pem(pem: bytes) -> Peer:
    """Whom a certificate names.

    Raises:
        Invalid: It is no certificate.
        NotAuthenticated: It names nobody.
    """
    try:
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    except ValueError as error:
        raise Invalid("this is no certificate") from error
    return identity_of(der)


def serial_text(number: int) -> str:
    """A certificate's serial number, as it is stored and compared."""
    return f"{number:040x}"
