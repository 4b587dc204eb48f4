"""Make names comparable without regard to case, in every script.

Must not lose a name: what is folded serves search only, the name itself stays bytes. Invariants:
folding is idempotent; bytes that are not UTF-8 become characters of a private plane, so that
they can be indexed and searched like any other; ASCII folds to the same as SQLite's ``lower``.
"""

from __future__ import annotations

import unicodedata

# A byte that is not UTF-8 is decoded to U+DC80..U+DCFF, which SQLite can't store.
_PRIVATE = {0xDC00 + byte: 0x10FE00 + byte for byte in range(0x80, 0x100)}


def fold_text(text: str) -> str:
    """Fold a text for caseless comparison (Unicode 3.13, D145), composed.

    Composed and decomposed forms become one, so that names made on other systems are found.
    """
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    return folded.translate(_PRIVATE)


def fold_name(name: bytes) -> str:
    """Fold a file name of any bytes."""
    return fold_text(name.decode("utf-8", "surrogateescape"))
