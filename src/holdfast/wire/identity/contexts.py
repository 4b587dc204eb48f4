"""TLS between machines of a site: 1.3, certificates of the site's authority, no host names.

Must not look at addresses or names of hosts: a certificate's own address says who is there.
Invariants: a connection that a client context makes is to a machine of this site in a role that it
wants, or fails in its handshake, before anything is sent; a private key is never written to disk
for the sake of OpenSSL.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, Invalid
from holdfast.wire.identity.peers import MachineRole, identity_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.wire.identity.holder import Identity

SERVERS = frozenset({MachineRole.MASTER, MachineRole.MEDIA})


def server_context(identity: Identity, *, require_client: bool) -> ssl.SSLContext:
    """For whoever is dialled.

    Args:
        identity: Who that is.
        require_client: Refuse who has no certificate in the handshake. Without it they get in, and
            whoever answers has to look: see `wire.peer`. A wrong certificate is refused anyway.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity.authority_pem)
    context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    # A ticket would let in who has been revoked since, without the certificate being shown.
    context.num_tickets = 0
    use(context, identity)
    return context


def client_context(
    identity: Identity, roles: Collection[MachineRole] = (MachineRole.MASTER,)
) -> ssl.SSLContext:
    """For whoever dials a master, or others of its site.

    Args:
        identity: Who dials.
        roles: As what the other end has to be known.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity.authority_pem)
    context.sslobject_class = _checking(identity.site_id, roles)
    use(context, identity)
    return context


def first_context(authority_pem: bytes, site_id: str | None = None) -> ssl.SSLContext:
    """For a machine that has no certificate yet, towards a master whose authority it knows."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, authority_pem)
    context.sslobject_class = _checking(site_id, (MachineRole.MASTER,))
    return context


def unverified_context() -> ssl.SSLContext:
    """For asking who the authority is: what is heard over it has to be proven in another way."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def use(context: ssl.SSLContext, identity: Identity) -> None:
    """Show a certificate on connections that are made from now on.

    Raises:
        Invalid: The key is not that of the certificate.
    """
    # OpenSSL is only told of files here. This one is in memory, and gone when it is closed.
    file = os.memfd_create("holdfast-identity", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as out:
            out.write(identity.key.pem + identity.certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    except ssl.SSLError as error:
        raise Invalid(f"the certificate of {identity.name} can't be used: {error}") from error
    finally:
        os.close(file)


def _context(protocol: int, authority_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=authority_pem.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise Invalid("the certificate of the site's authority can't be read") from error
    return context


def _checking(site_id: str | None, roles: Collection[MachineRole]) -> type[ssl.SSLObject]:
    """TLS whose handshake fails unless the other end is a machine of a site in some role.

    An agent has a certificate of the same authority: without this it could pose as the master.
    """

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                peer = identity_of(self.getpeercert(binary_form=True) or b"")
            except HoldfastError as error:
                raise ssl.SSLCertVerificationError(1, error.message) from error
            wanted = " or ".join(sorted(roles))
            if peer.role not in roles:
                message = f"the other end is the {peer.role} '{peer.name}', not a {wanted}"
                raise ssl.SSLCertVerificationError(1, message)
            if site_id is not None and peer.site_id != site_id:
                raise ssl.SSLCertVerificationError(1, f"the other end is of site {peer.site_id}")

    return Checked
