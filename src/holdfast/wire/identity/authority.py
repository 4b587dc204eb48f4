"""The site's own certificate authority.

Must not decide who gets a certificate, nor store its key. Invariants: a certificate that it issues
is of one machine and one role, is no authority, and ends before the authority does; of a request
only the public key is taken, after its owner has proven to have the private one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.base.errors import Invalid
from holdfast.wire.identity.holder import MachineKey, load_key
from holdfast.wire.identity.peers import Peer, address, identity_of, machine_name

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.wire.identity.peers import MachineRole

AUTHORITY_LIFE = timedelta(days=3653)
"""Ten years."""

BEFORE = timedelta(hours=1)
"""By so much the clock of a machine may be behind that of the master."""

MAX_REQUEST_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was just made.

    Attributes:
        pem: The certificate.
        peer: What it says.
    """

    pem: bytes
    peer: Peer


class Authority:
    """One site's authority. Thread-safe."""

    def __init__(self, certificate_pem: bytes, key: MachineKey) -> None:
        """Take an authority up again.

        Raises:
            Invalid: The key is not that of the certificate, or this is no authority.
        """
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate_pem)
            constraints = self._certificate.extensions.get_extension_for_class(
                x509.BasicConstraints
            ).value
            (unit,) = self._certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except (ValueError, x509.ExtensionNotFound) as error:
            raise Invalid("this is no certificate of an authority") from error
        self._key = load_key(key.pem)
        if not constraints.ca or self._certificate.public_key() != self._key.public_key():
            raise Invalid("the key is not that of this authority")
        self.certificate_pem = certificate_pem
        self.key = key
        self.site_id = str(unit.value).rpartition(" ")[2]

    @classmethod
    def create(cls, site_id: str, now: datetime) -> Self:
        """Make the authority of a site.

        Args:
            site_id: 32 hexadecimal digits.
            now: When.
        """
        key = MachineKey.generate()
        private = load_key(key.pem)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holdfast site {site_id}")])
        public = private.public_key()
        made = (
            _builder(name, name, public, now - timedelta(days=1), now + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(private, hashes.SHA256())
        )
        return cls(made.public_bytes(serialization.Encoding.PEM), key)

    def issue(
        self, csr_pem: bytes, role: MachineRole, name: str, now: datetime, life: timedelta
    ) -> Issued:
        """Make a certificate.

        Args:
            csr_pem: Which key; whatever else it asks for is not looked at.
            role: What the certificate is to say.
            name: Whose it is to be.
            now: When.
            life: For how long it is to be good.

        Raises:
            Invalid: The request is none, or its maker does not have the key.
        """
        public = _public_key_of(csr_pem)
        uri = address(self.site_id, role, name)
        ends = min(now + life, self._certificate.not_valid_after_utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, machine_name(name))])
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        own = self._key.public_key()
        made = (
            _builder(subject, self._certificate.subject, public, now - BEFORE, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        peer = identity_of(made.public_bytes(serialization.Encoding.DER))
        return Issued(made.public_bytes(serialization.Encoding.PEM), peer)


def key_fingerprint(csr_pem: bytes) -> str:
    """SHA-256 of the public key that a request is for, in hexadecimal digits.

    Raises:
        Invalid: The request is none, or its maker does not have the key.
    """
    raw = _public_key_of(csr_pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return sha256(raw).hexdigest()


def _public_key_of(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    if len(csr_pem) > MAX_REQUEST_BYTES:
        raise Invalid(f"a request for a certificate has up to {MAX_REQUEST_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        genuine = request.is_signature_valid
        public = request.public_key()
    except Exception as error:
        # cryptography raises more than it documents for keys and signatures that it does not know.
        raise Invalid("this is no request for a certificate") from error
    if not genuine:
        raise Invalid("the request for a certificate is not signed with its own key")
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, ec.SECP256R1
    ):
        raise Invalid("a machine's key has to be one on the curve P-256")
    return public


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
