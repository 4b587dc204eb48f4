"""The authority's private key, sealed so that who reads the database does not have it.

Must not store anything. AES-256-GCM under a key that HKDF-SHA-256 derives from that of the pool,
bound to the authority's certificate: who brings a site back from its pool has both. Bytes: one of
version (1), 12 of nonce, then the sealed text and its tag.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast.base.errors import NewerFormat, WrongKey
from holdfast.wire.identity import Authority, MachineKey, authority_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

INFO = b"holdfast site authority v1"
_VERSION = b"\x01"
_NONCE_BYTES = 12


def seal(
    authority: Authority, pool_key: bytes, random: Callable[[int], bytes] = os.urandom
) -> bytes:
    """Seal an authority's private key.

    Args:
        authority: Whose.
        pool_key: 32 bytes.
        random: Gives random bytes.
    """
    nonce = random(_NONCE_BYTES)
    bound = authority_fingerprint(authority.certificate_pem)
    return _VERSION + nonce + _cipher(pool_key).encrypt(nonce, authority.key.pem, bound)


def unseal(certificate_pem: bytes, sealed: bytes, pool_key: bytes) -> Authority:
    """Take an authority up again.

    Raises:
        WrongKey: It was sealed under the key of another pool, or is damaged.
        NewerFormat: A newer Holdfast sealed it.
    """
    if sealed[:1] != _VERSION:
        raise NewerFormat("the key of the site's authority was sealed by a newer Holdfast")
    nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        pem = _cipher(pool_key).decrypt(nonce, body, authority_fingerprint(certificate_pem))
    except (InvalidTag, ValueError) as error:
        raise WrongKey(
            "the key of this site does not open that of its authority for machines",
            "the control database is of a site with another pool",
        ) from error
    return Authority(certificate_pem, MachineKey(pem))


def _cipher(pool_key: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, INFO).derive(pool_key))
