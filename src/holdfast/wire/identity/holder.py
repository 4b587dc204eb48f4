"""A machine's own key, and what it shows to others.

Must not store anything: see `machine_home`. Invariant: the key is made here, and only its public
half is ever asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.base.errors import Invalid, NotAuthenticated
from holdfast.wire.identity.peers import peer_of_pem

if TYPE_CHECKING:
    from holdfast.base.ids import ClientName
    from holdfast.wire.identity.peers import MachineRole, Peer


@dataclass(frozen=True, slots=True)
class MachineKey:
    """A private key on the curve P-256.

    Attributes:
        pem: PKCS #8, unencrypted: whoever reads it is this machine.
    """

    pem: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Make one."""
        return cls(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def csr_pem(self) -> bytes:
        """A request for a certificate. It says nothing but which key: the authority decides."""
        key = load_key(self.pem)
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a machine is, with what proves it.

    Attributes:
        role: What it is in its site.
        name: How it is called there.
        site_id: Which site, 32 hexadecimal digits.
        certificate_pem: What it shows.
        key: What proves that it is its own.
        authority_pem: By which it judges others.
    """

    role: MachineRole
    name: ClientName
    site_id: str
    certificate_pem: bytes
    key: MachineKey
    authority_pem: bytes


def key_matches(certificate_pem: bytes, key: MachineKey) -> Peer | None:
    """Whom a certificate names; None if it is none, or not for this key."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        if certificate.public_key() != load_key(key.pem).public_key():
            return None
        return peer_of_pem(certificate_pem)
    except (ValueError, Invalid, NotAuthenticated):
        return None


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a private key.

    Raises:
        Invalid: It is none, or not one of P-256.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise Invalid("this is no private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid("the private key is not one on the curve P-256")
    return key
