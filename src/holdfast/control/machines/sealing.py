"""The authority's private key, sealed so that who reads the database does not have it.

Must not store anything. It is bound to the authority's certificate; see `control.sealed`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast.control import sealed as secrets
from holdfast.wire.identity import Authority, MachineKey, authority_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

USE = b"holdfast site authority v1"


def seal(
    authority: Authority, pool_key: bytes, random: Callable[[int], bytes] = os.urandom
) -> bytes:
    """Seal an authority's private key.

    Args:
        authority: Whose.
        pool_key: 32 bytes.
        random: Gives random bytes.
    """
    bound_to = authority_fingerprint(authority.certificate_pem)
    return secrets.seal(authority.key.pem, pool_key, USE, bound_to, random)


def unseal(certificate_pem: bytes, sealed: bytes, pool_key: bytes) -> Authority:
    """Take an authority up again.

    Raises:
        WrongKey: It was sealed under the key of another pool, or is damaged.
        NewerFormat: A newer Holdfast sealed it.
    """
    bound_to = authority_fingerprint(certificate_pem)
    what = "the key of the site's authority for machines"
    return Authority(
        certificate_pem, MachineKey(secrets.unseal(sealed, pool_key, USE, bound_to, what))
    )
