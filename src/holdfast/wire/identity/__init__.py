"""Who is who among the machines of a site: authority, keys, certificates, TLS.

The front door. Must not store anything, nor decide who may join. Invariants: a machine is known by
the address in its certificate, ``holdfast://SITE/ROLE/NAME``, never by a host name; a private key
never leaves the machine that made it; what a certificate says is what the authority decided,
whatever was asked for.
"""

from holdfast.wire.identity.authority import Authority, Issued, key_fingerprint
from holdfast.wire.identity.contexts import (
    client_context,
    first_context,
    server_context,
    unverified_context,
    use,
)
from holdfast.wire.identity.enrollment import EnrollmentToken, secret_hash
from holdfast.wire.identity.holder import Identity, MachineKey, key_matches
from holdfast.wire.identity.peers import (
    MachineRole,
    Peer,
    authority_fingerprint,
    identity_of,
    machine_name,
    peer_of_pem,
    valid_between,
)

__all__ = [
    "Authority",
    "EnrollmentToken",
    "Identity",
    "Issued",
    "MachineKey",
    "MachineRole",
    "Peer",
    "authority_fingerprint",
    "client_context",
    "first_context",
    "identity_of",
    "key_fingerprint",
    "key_matches",
    "machine_name",
    "peer_of_pem",
    "secret_hash",
    "server_context",
    "unverified_context",
    "use",
    "valid_between",
]
