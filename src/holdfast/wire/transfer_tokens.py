"""Short-lived tokens by which a master lets one machine move the data of one job.

Must not decide who may do what (control), nor say whose certificate a request came with (whoever
serves it compares that with `TransferGrant.client`). Invariants: a token has exactly one text, so
no changed byte of it is accepted; nothing in it is looked at before its signature was found right;
whoever checks tokens can't make any.

The text is ``<payload>.<signature>``, both base64 for URLs without padding. The payload is JSON in
its canonical form: ASCII, keys in order, no white space. The signature is Ed25519 over
a line that names its purpose and the payload's bytes. See docs/formats/transfer.md.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InvalidSignature

from holdfast.base.errors import Invalid, NotAuthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VERSION = 1

BACKUP = "backup"
RESTORE = "restore"
REPLICATE = "replicate"
VERBS = frozenset({BACKUP, RESTORE, REPLICATE})

MASTER_ITSELF = "master:"
"""Among the places where a job's data goes: where the machine reached its master."""

LONGEST = 48 << 10
"""A token with more characters is neither made nor looked at: it travels in a header."""

LEEWAY_S = 30
"""For so long after its end a token is still taken: clocks of two machines differ a little."""

NONCE_BYTES = 16

KNOWN = 256
"""So many tokens are remembered as verified."""

_CONTEXT = b"holdfast transfer token 1\n"
_SIGNATURE_BYTES = 64
_INFO = b"holdfast transfer tokens v1"


class TokenKey(Protocol):
    """What tells a token of the master from others: an ``Ed25519PublicKey``, or what has one."""

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise ``InvalidSignature`` for what was not signed, or why that can't be told."""
        ...


@dataclass(frozen=True, slots=True)
class TransferGrant:
    """What one token allows.

    Attributes:
        job: For which job.
        fence: Under which fence the job was given out; an older one can do nothing any more.
        client: Whose token it is: the name in the certificate of who may use it.
        source: What a backup is of; images of one name follow each other.
        pool: The pool, 32 hexadecimal digits.
        verbs: `BACKUP`, `RESTORE`, or both; or `REPLICATE` alone.
        images: Ids of the images that may be read; to replicate, the one that may be brought.
        labels: What a manifest is to say of who ordered it.
        parent: The image to compare a backup with, which may be read, too; to replicate, one that
            both pools have.
        host: Whose the image of a backup is, where that is not the client: the virtual machine that
            it reads for its site.
        expires_s: When it ends, in seconds since 1970.
        nonce: Makes each token another one.
    """

    job: int
    fence: int
    client: str
    source: str
    pool: str
    verbs: frozenset[str]
    expires_s: int
    images: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    host: str | None = None
    nonce: str = field(default_factory=lambda: secrets.token_hex(NONCE_BYTES))

    @property
    def brought(self) -> str | None:
        """The image of another pool that may be brought, if that is what this is for."""
        return next(iter(self.images)) if REPLICATE in self.verbs else None

    @property
    def readable(self) -> frozenset[str]:
        """Every image that may be read: for a backup its parent, for a restore what it names."""
        parent = {self.parent} if self.parent is not None and BACKUP in self.verbs else set()
        return frozenset(parent) | (self.images if RESTORE in self.verbs else frozenset())


def signing_key(pool_key: bytes) -> Ed25519PrivateKey:
    """The key of a site's tokens: whoever has the pool has it, masters and media servers alike."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return Ed25519PrivateKey.from_private_bytes(HKDF(SHA256(), 32, None, _INFO).derive(pool_key))


def sign(grant: TransferGrant, key: Ed25519PrivateKey) -> str:
    """Make a token.

    Raises:
        Invalid: The grant is not one that `check` would hand back, or its text is too long.
    """
    payload = _payload(grant)
    if _grant(json.loads(payload)) != grant:
        raise Invalid("a transfer token says only what it can say exactly")
    text = f"{_text(payload)}.{_text(key.sign(_CONTEXT + payload))}"
    if len(text) > LONGEST:
        raise Invalid(
            f"a transfer token of job {grant.job} has {len(text)} characters of at most {LONGEST}",
            "name fewer paths in one selection, or fewer images at once",
        )
    return text


def check(text: str, key: TokenKey, now_s: float) -> TransferGrant:
    """Read a token that the master made and that has not ended.

    Args:
        text: As it came.
        key: The master's.
        now_s: Seconds since 1970.

    Raises:
        NotAuthenticated: It is not the master's, or it has ended. What is wrong with a forged one
            is not told.
    """
    grant = _read(text, key)
    if now_s > grant.expires_s + LEEWAY_S:
        raise NotAuthenticated(
            f"the transfer token of job {grant.job} ended {now_s - grant.expires_s:.0f} s ago",
            "ask the master server for a new one; see that the clocks of both machines are right",
        )
    return grant


class TokenReader:
    """Reads tokens as `check` does, and those that it saw a moment ago without much work.

    A client shows the same token with each of its requests, and to verify a signature costs as
    much as a small request does. Not thread-safe.
    """

    def __init__(self, key: TokenKey) -> None:
        self._key = key
        self._known: OrderedDict[str, TransferGrant] = OrderedDict()

    def check(self, text: str, now_s: float) -> TransferGrant:
        """See `check`."""
        known = self._known.get(text)
        if known is not None and now_s <= known.expires_s + LEEWAY_S:
            return known
        grant = check(text, self._key, now_s)
        self._known[text] = grant
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return grant


def _read(text: str, key: TokenKey) -> TransferGrant:
    payload = _signed(text, key)
    try:
        data = json.loads(payload)
        grant = _grant(data)
        canonical = _payload(grant) == payload
    except (ValueError, Invalid, RecursionError) as error:
        # The master's own signature is on it: a newer master's, most likely.
        raise NotAuthenticated(
            f"the transfer token is not understood here: {error}",
            "update the software of the media server",
        ) from error
    if not canonical:
        raise NotAuthenticated("the transfer token is not in its canonical form")
    return grant


def _signed(text: str, key: TokenKey) -> bytes:
    forged = NotAuthenticated(
        "the transfer token is not one that this site's master server made",
        "a job gets its tokens from the master server, each for a short time",
    )
    if len(text) > LONGEST:
        raise forged
    before, dot, after = text.partition(".")
    payload, signature = _bytes(before), _bytes(after)
    if not dot or payload is None or signature is None or len(signature) != _SIGNATURE_BYTES:
        raise forged
    try:
        key.verify(signature, _CONTEXT + payload)
    except InvalidSignature:
        raise forged from None
    return payload


def _payload(grant: TransferGrant) -> bytes:
    plain = {
        "v": VERSION,
        **{name: value for name, value in asdict(grant).items() if name != "expires_s"},
        "expires": grant.expires_s,
        "verbs": sorted(grant.verbs),
        "images": sorted(grant.images),
        "labels": dict(grant.labels),
    }
    if grant.host is None:
        del plain["host"]
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _grant(data: Any) -> TransferGrant:
    if not isinstance(data, dict) or data.get("v") != VERSION:
        raise Invalid("its version is not 1")
    names = {"v", "expires"} | {one.name for one in fields(TransferGrant)} - {"expires_s"}
    if set(data) | {"host"} != names:
        raise Invalid("its fields are not those of version 1")
    verbs, images = _verbs(_words(data, "verbs")), _words(data, "images")
    if REPLICATE in verbs and (len(verbs), len(images)) != (1, 1):
        raise Invalid("to replicate it names one image, and is for nothing else")
    return TransferGrant(
        job=_whole(data, "job"),
        fence=_whole(data, "fence"),
        client=_word(data, "client"),
        source=_word(data, "source"),
        pool=_word(data, "pool"),
        verbs=verbs,
        expires_s=_whole(data, "expires"),
        images=images,
        labels=_labels(data["labels"]),
        parent=None if data["parent"] is None else _word(data, "parent"),
        host=_word(data, "host") if "host" in data else None,
        nonce=_word(data, "nonce"),
    )


def _whole(data: dict[str, Any], name: str) -> int:
    value = data[name]
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise Invalid(f"its '{name}' is not a whole number")
    return value


def _word(data: dict[str, Any], name: str) -> str:
    value = data[name]
    if not isinstance(value, str) or not value:
        raise Invalid(f"its '{name}' is not a text")
    return value


def _words(data: dict[str, Any], name: str) -> frozenset[str]:
    value = data[name]
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise Invalid(f"its '{name}' is not a list of texts")
    return frozenset(value)


def _verbs(given: frozenset[str]) -> frozenset[str]:
    if not given or not given <= VERBS:
        raise Invalid(f"its verbs are not of {', '.join(sorted(VERBS))}")
    return given


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise Invalid("its labels are not texts")
    return dict(value)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes | None:
    """Undo `_text`; None for anything that `_text` would not have written."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    # The last character may carry bits that mean nothing: those have one right value, too.
    return raw if _text(raw) == text else None
