"""The engine derives and wraps as OpenSSL does, whatever a slot says, and lets others run."""

from __future__ import annotations

import sys
import threading

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.engine import unwrap_key, wrap_key

KEYS = st.binary(min_size=32, max_size=32)
NONCES = st.binary(min_size=12, max_size=12)
SECRETS = st.binary(min_size=1, max_size=300)
SALTS = st.binary(min_size=8, max_size=64)
CONTEXTS = st.binary(max_size=100)


@st.composite
def costs(draw: st.DrawFn) -> tuple[int, int, int]:
    """Memory in KiB, passes and lanes: also such memory as lanes do not share evenly."""
    lanes = draw(st.integers(1, 16))
    return draw(st.integers(8 * lanes, 8 * lanes + 600)), draw(st.integers(1, 4)), lanes


@given(KEYS, SECRETS, costs(), SALTS, NONCES, CONTEXTS)
def test_a_passphrase_wraps_as_it_does_in_openssl(
    key: bytes,
    secret: bytes,
    cost: tuple[int, int, int],
    salt: bytes,
    nonce: bytes,
    bound_to: bytes,
) -> None:
    memory_kib, passes, lanes = cost
    known = Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib
    ).derive(secret)
    wrapped = wrap_key(key, secret, how=cost, salt=salt, nonce=nonce, bound_to=bound_to)
    assert wrapped == AESGCM(known).encrypt(nonce, key, bound_to)
    opened = unwrap_key(wrapped, secret, how=cost, salt=salt, nonce=nonce, bound_to=bound_to)
    assert opened == key


@pytest.mark.parametrize("cost", [(32768, 3, 4), (65536, 1, 1), (19456, 2, 1)])
def test_so_it_does_at_the_costs_that_are_used(cost: tuple[int, int, int]) -> None:
    memory_kib, passes, lanes = cost
    salt, nonce = b"salt" * 8, b"n" * 12
    known = Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib
    ).derive(b"correct horse")
    wrapped = AESGCM(known).encrypt(nonce, b"k" * 32, b"")
    opened = unwrap_key(wrapped, b"correct horse", how=cost, salt=salt, nonce=nonce, bound_to=b"")
    assert opened == b"k" * 32


@given(KEYS, SECRETS, st.binary(max_size=60), SALTS, NONCES, CONTEXTS)
def test_a_key_file_wraps_as_it_does_in_openssl(
    key: bytes, secret: bytes, info: bytes, salt: bytes, nonce: bytes, bound_to: bytes
) -> None:
    known = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
    wrapped = wrap_key(key, secret, how=info, salt=salt, nonce=nonce, bound_to=bound_to)
    assert wrapped == AESGCM(known).encrypt(nonce, key, bound_to)
    opened = unwrap_key(wrapped, secret, how=info, salt=salt, nonce=nonce, bound_to=bound_to)
    assert opened == key


@given(st.binary(max_size=80), st.binary(max_size=20), costs())
def test_lengths_that_are_none_are_refused(
    wrapped: bytes, nonce: bytes, cost: tuple[int, int, int]
) -> None:
    if (len(wrapped), len(nonce)) == (48, 12):
        return
    with pytest.raises(Invalid, match=r"a (nonce|wrapped key) has (12|48) bytes, this one \d+"):
        unwrap_key(wrapped, b"words", how=cost, salt=b"s" * 32, nonce=nonce, bound_to=b"")


def test_others_run_while_a_key_is_derived() -> None:
    known = {"salt": b"s" * 32, "nonce": b"n" * 12, "bound_to": b""}
    done: list[bytes] = []
    began = threading.Event()

    def derive() -> None:
        began.set()
        done.append(wrap_key(b"k" * 32, b"words", how=(65536, 4, 1), **known))

    before = sys.getswitchinterval()
    # So short that a thread which kept the interpreter would leave no time to count before it.
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=derive)
        thread.start()
        began.wait()
        counted = 0
        while not done:
            counted += 1
        thread.join()
    finally:
        sys.setswitchinterval(before)
    assert counted > 5000
