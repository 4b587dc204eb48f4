"""Certificates of machines, signed by an authority that nobody but a test trusts."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.base.ids import ClientName
from holdfast.wire.identity import MachineRole, Peer

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

_PEM = serialization.Encoding.PEM

SITE_ID = "5e" * 16


class Machines:
    """A site's authority, and contexts for the machines that it knows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        made = (
            self._certificate(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        (directory / "authority.pem").write_bytes(made.public_bytes(_PEM))

    def server(self) -> ssl.SSLContext:
        """For a media server: TLS 1.3, and nobody without a certificate of this authority."""
        self._issue("media-server", f"holdfast://{SITE_ID}/media/server")
        return server_context(self._directory)

    def client(self, name: str, role: str = "agent") -> ssl.SSLContext:
        """For a machine of this name and role."""
        self._issue(f"{role}-{name}", f"holdfast://{SITE_ID}/{role}/{name}")
        return client_context(self._directory, name, role)

    def _issue(self, file: str, said: str) -> None:
        place = self._directory / f"{file}.pem"
        if place.exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        uri = x509.UniformResourceIdentifier(said)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
        made = (
            self._certificate(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        place.write_bytes(private + made.public_bytes(_PEM))

    def _certificate(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )


def server_context(directory: Path) -> ssl.SSLContext:
    """What `Machines.server` made in a directory, also for another process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, directory, "media-server")


def client_context(directory: Path, name: str, role: str = "agent") -> ssl.SSLContext:
    """What `Machines.client` made in a directory, also for another process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _loaded(context, directory, f"{role}-{name}")


def _loaded(context: ssl.SSLContext, directory: Path, file: str) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(directory / f"{file}.pem")
    context.load_verify_locations(directory / "authority.pem")
    return context


def peer(request: web.Request) -> Peer:
    """Who the certificate that a request came with is of."""
    assert request.transport is not None
    der = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    [uri] = names.get_values_for_type(x509.UniformResourceIdentifier)
    _, _, site, role, name = uri.split("/")
    return Peer(
        site_id=site,
        role=MachineRole(role),
        name=ClientName(name),
        serial="00",
        fingerprint="00",
        expires_ns=0,
    )
