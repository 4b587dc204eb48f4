"""The bytes of generated files: text, code, logs, database pages, and what does not compress.

Must not touch the disk. Invariant: each function gives exactly ``size`` bytes (``edited`` gives
a few more than it was given), in pieces of about 256 KiB, and the same ones for the same state
of the random numbers handed in.

Text is made of tokens that random bytes choose from a table of 256; each file (each piece of a
large one) has a table of its own. So files resemble each other as sources of one project do,
yet never share long runs of bytes that no real tree would share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from random import Random

_PIECE_BYTES = 256 << 10
_PAGE_BYTES = 8192

_SYNTAX = (
    (b" ", 30), (b"\n    ", 14), (b"(", 8), (b");\n    ", 8), (b", ", 10), (b" = ", 7),
    (b"->", 5), (b".", 6), (b"if (", 3), (b") {\n        ", 3), (b"}\n\n", 2), (b"return ", 3),
    (b"static ", 2), (b"const ", 3), (b"struct ", 2), (b"int ", 3), (b"/* ", 1), (b" */\n", 1),
    (b"0", 3), (b"1", 2), (b"NULL", 2), (b"#define ", 1), (b" + ", 2), (b'"', 3), (b"\n", 4),
)  # fmt: skip


def vocabulary(random: Random, count: int) -> list[bytes]:
    """Invent identifiers."""
    letters = b"etaoinsrhldcumfpgwybvkxjqz"
    weights = [26 - at for at in range(26)]

    def word() -> bytes:
        return bytes(random.choices(letters, weights, k=random.randrange(2, 9)))

    return [b"_".join(word() for _ in range(random.choice((1, 1, 2, 3)))) for _ in range(count)]


def source_text(random: Random, words: list[bytes], size: int) -> Iterator[bytes]:
    """A source file: syntax, common identifiers, and many that are its own."""

    def table() -> list[bytes]:
        tokens = [token for token, times in _SYNTAX for _ in range(times)]
        while len(tokens) < 256:
            # Squared: words at the front of the vocabulary are common, those at its end rare.
            tokens.append(words[int(random.random() ** 2 * len(words))])
        return tokens

    return _from_tables(random, table, size)


def machine_code(random: Random, size: int) -> Iterator[bytes]:
    """A compiled program: short frequent instructions, and operands nobody can guess."""

    def table() -> list[bytes]:
        tokens = [random.randbytes(random.choice((1, 2, 3, 4))) for _ in range(40)]
        common = [random.randbytes(random.choice((2, 3, 5, 7))) for _ in range(24)]
        tokens += [b"\0" * random.choice((1, 3, 4)) for _ in range(24)]
        while len(tokens) < 256:
            tokens.append(common[int(random.random() ** 2 * len(common))])
        return tokens

    return _from_tables(random, table, size)


def log_text(random: Random, size: int) -> Iterator[bytes]:
    """Lines of a log: times that grow, a few hosts and messages, numbers."""
    moment = 1_600_000_000_000
    hosts = [b"10.%d.%d.%d" % tuple(random.randbytes(3)) for _ in range(200)]
    words = vocabulary(random, 400)
    messages = [b" ".join(random.choices(words, k=random.randrange(3, 9))) for _ in range(300)]

    def lines() -> Iterator[bytes]:
        nonlocal moment
        while True:
            made = []
            for step, host, message, low, high in zip(
                *(iter(random.randbytes(5 * 3000)),) * 5, strict=True
            ):
                moment += step
                text = messages[(message * 300) >> 8]
                made.append(b"%d %s %s id=%d\n" % (moment, hosts[host % 200], text, low * high))
            yield b"".join(made)

    return _cut(lines(), size)


def database_pages(random: Random, size: int) -> Iterator[bytes]:
    """Pages of 8 KiB as a database has them: a header, rows, free space of zeros."""
    words = vocabulary(random, 2000)

    def pages() -> Iterator[bytes]:
        number = 0
        while True:
            made = []
            for _ in range(_PIECE_BYTES // _PAGE_BYTES):
                number += 1
                head = b"PG" + number.to_bytes(8, "little") + random.randbytes(6)
                rows = [head]
                used = len(head)
                limit = random.randrange(_PAGE_BYTES // 2, _PAGE_BYTES - 64)
                while used < limit:
                    row = b"%s\0%s|%s" % (
                        random.randbytes(12),
                        random.choice(words),
                        b" ".join(random.choices(words, k=5)),
                    )
                    rows.append(row)
                    used += len(row)
                made.append(b"".join(rows)[:_PAGE_BYTES].ljust(_PAGE_BYTES, b"\0"))
            yield b"".join(made)

    return _cut(pages(), size)


def incompressible(random: Random, size: int) -> Iterator[bytes]:
    """Pictures, films, archives: nothing to save."""
    while size > 0:
        yield random.randbytes(min(size, _PIECE_BYTES))
        size -= _PIECE_BYTES


def edited(pieces: Iterable[bytes], random: Random) -> Iterator[bytes]:
    """A newer version: in one piece of eight, some bytes are inserted, so that all shifts."""
    for piece in pieces:
        if random.randrange(8) == 0:
            at = random.randrange(len(piece))
            yield piece[:at] + random.randbytes(random.randrange(1, 200)) + piece[at:]
        else:
            yield piece


def _from_tables(random: Random, table: Callable[[], list[bytes]], size: int) -> Iterator[bytes]:
    def endless() -> Iterator[bytes]:
        left = size
        while True:
            choose = table().__getitem__
            piece = b"".join(map(choose, random.randbytes(min(left // 2 + 64, 40_000))))
            left -= len(piece)
            yield piece
            left = max(left, 0)

    return _cut(endless(), size)


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        piece = next(pieces)[:size]
        size -= len(piece)
        yield piece
