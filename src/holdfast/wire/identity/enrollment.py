"""The text with which a machine joins a site, once.

Must not be stored by who made it: its hash is. Invariant: the text has what the machine needs to
know the site's authority before it shows the secret to anybody.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from holdfast.base.errors import Invalid
from holdfast.wire.identity.peers import authority_fingerprint

PREFIX = "hfe1"
FINGERPRINT_BYTES = 16
_SECRET_BYTES = 20
_TEXT = re.compile(rf"{PREFIX}\.([a-z2-7]{{32}})\.([0-9a-f]{{32}})")


@dataclass(frozen=True, slots=True)
class EnrollmentToken:
    """One token.

    Attributes:
        secret: What lets a machine in: 160 random bits in base32, lower case.
        fingerprint: The first bytes of the SHA-256 of the authority's certificate.
    """

    secret: str = field(repr=False)
    fingerprint: bytes

    @classmethod
    def generate(cls, authority_pem: bytes) -> Self:
        """Make one for the site of an authority."""
        secret = base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode().lower()
        return cls(secret, authority_fingerprint(authority_pem)[:FINGERPRINT_BYTES])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what somebody typed or pasted.

        Raises:
            Invalid: It is no such token; what was typed is not repeated.
        """
        matched = _TEXT.fullmatch(text.strip())
        if matched is None:
            raise Invalid(
                "this is no enrollment token",
                f"one begins with '{PREFIX}.', and is made with: holdfast machine token",
            )
        return cls(matched[1], bytes.fromhex(matched[2]))

    def text(self) -> str:
        """To be given to the machine."""
        return f"{PREFIX}.{self.secret}.{self.fingerprint.hex()}"

    def is_of(self, authority_pem: bytes) -> bool:
        """Whether an authority is the one that the token was made for."""
        found = authority_fingerprint(authority_pem)[:FINGERPRINT_BYTES]
        return hmac.compare_digest(found, self.fingerprint)


def secret_hash(secret: str) -> str:
    """What is kept of a secret. Nobody guesses 160 bits, so it takes no salt and no time."""
    return sha256(b"holdfast enrollment\0" + secret.encode("utf-8", "surrogatepass")).hexdigest()
