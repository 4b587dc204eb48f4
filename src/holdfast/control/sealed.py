"""Secrets in the control database, sealed so that who reads the database does not have them.

Must not store anything. AES-256-GCM under a key that HKDF-SHA-256 derives from that of the site's
pool, one for each use, bound to what the secret belongs to: who brings a site back from its pool
has both. Bytes: one of version (1), 12 of nonce, then the sealed text and its tag.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast.base.errors import NewerFormat, WrongKey

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = b"\x01"
_NONCE_BYTES = 12


def seal(
    secret: bytes,
    pool_key: bytes,
    use: bytes,
    bound_to: bytes,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Seal a secret.

    Args:
        secret: What nobody is to read.
        pool_key: 32 bytes: the key of the site's pool.
        use: What secrets of this kind are for.
        bound_to: What this one belongs to; it opens for that alone.
        random: Gives random bytes.
    """
    nonce = random(_NONCE_BYTES)
    return _VERSION + nonce + _cipher(pool_key, use).encrypt(nonce, secret, bound_to)


def unseal(sealed: bytes, pool_key: bytes, use: bytes, bound_to: bytes, what: str) -> bytes:
    """Open what `seal` sealed.

    Args:
        sealed: Its bytes.
        pool_key: As above, and so the next two.
        use: See `seal`.
        bound_to: See `seal`.
        what: The secret in words, for messages.

    Raises:
        WrongKey: It was sealed under the key of another pool, or is damaged.
        NewerFormat: A newer Holdfast sealed it.
    """
    if sealed[:1] != _VERSION:
        raise NewerFormat(f"{what} was sealed by a newer Holdfast")
    nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return _cipher(pool_key, use).decrypt(nonce, body, bound_to)
    except (InvalidTag, ValueError) as error:
        raise WrongKey(
            f"the key of this site does not open {what}",
            "the control database is of a site with another pool",
        ) from error


def _cipher(pool_key: bytes, use: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, use).derive(pool_key))
