"""The recovery kit: a pool key on paper, as words and as a QR code, and back again.

Must not read or write any store; whoever calls decides where the kit goes, and it goes nowhere
unencrypted by itself. Invariants: a kit holds all that opening the pool needs; what `read`
returns is exactly the key that `make` was given, or it is an error that says which word is wrong.

Words: BIP39 (English), 24 words for the 32 bytes, the last one carrying 8 check bits. Two more
words are the first 22 bits of SHA-256 over a label, the pool id and the key, so that a mistyped
word is found, and usually named.
"""

from __future__ import annotations

import difflib
import hashlib
import html
import re
from dataclasses import dataclass, field
from functools import cache
from string import Template
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from datetime import datetime

KEY_BYTES = 32
KEY_WORDS = 24
ALL_WORDS = 26
_CHECK_LABEL = b"holdfast recovery kit v1"
_PAYLOAD_VERSION = 1
_PAYLOAD = re.compile(
    r"HOLDFAST-KIT:(\d+):([0-9A-F]{32}):([0-9A-F]{64}):([0-9A-F]{8})", re.IGNORECASE
)
_BARE_KEY = re.compile(r"[0-9a-fA-F]{64}")
_NUMBERED = re.compile(r"\b(\d{2})[.:)]?[ \t]+([^\W\d_]+)")
_POOL_LINE = re.compile(r"^Pool\s+([0-9a-f]{32})\s*$", re.MULTILINE)
_MAX_TEXT = 64 << 10


@dataclass(frozen=True, slots=True)
class Kit:
    """A kit, ready to be printed. Each form alone suffices.

    Attributes:
        text: Plain text, 78 columns, to be printed or written down.
        html: One page that needs nothing else and prints on one sheet of A4 or Letter.
        payload: What the QR code says.
    """

    text: str = field(repr=False)
    html: str = field(repr=False)
    payload: str = field(repr=False)


def make(pool_id: bytes, pool_url: str, pool_key: bytes, created: datetime) -> Kit:
    """Write the recovery kit of a pool.

    Args:
        pool_id: 16 bytes.
        pool_url: Where the pool lies; printed.
        pool_key: 32 bytes.
        created: The date on the page; aware.

    Raises:
        Invalid: The id or the key has another length.
    """
    if len(pool_id) != 16 or len(pool_key) != KEY_BYTES:
        raise Invalid("a recovery kit needs a pool id of 16 bytes and a key of 32")
    words = to_words(pool_id, pool_key)
    check = _digest(pool_id, pool_key)[:4].hex()
    payload = f"HOLDFAST-KIT:{_PAYLOAD_VERSION}:{pool_id.hex()}:{pool_key.hex()}:{check}".upper()
    date = f"{created:%Y-%m-%d}"
    text = _TEXT.substitute(pool=pool_id.hex(), url=pool_url, date=date, words=_word_lines(words))
    page = _PAGE.substitute(
        pool=pool_id.hex(),
        url=html.escape(pool_url),
        date=date,
        words="\n".join(f"<li>{word}</li>" for word in words),
        code=_qr_svg(payload),
    )
    return Kit(text, page, payload)


def read(text: str) -> bytes:
    """Return the pool key out of whatever a person brings of a kit.

    Args:
        text: The whole text of a kit; or its 26 or first 24 words, numbered or not; or what the
            QR code says; or the key as 64 hexadecimal digits.

    Raises:
        Invalid: It is none of these, or a word is wrong: the message names its position and the
            nearest word.
    """
    if len(text) > _MAX_TEXT:
        raise Invalid(f"a recovery kit has a few hundred characters, not {len(text)}")
    payload = _PAYLOAD.search(text)
    if payload is not None:
        return _from_payload(payload)
    if _BARE_KEY.fullmatch(text.strip()):
        return bytes.fromhex(text.strip())
    pool_line = _POOL_LINE.search(text)
    return from_words(_words_in(text), bytes.fromhex(pool_line[1]) if pool_line else None)


def to_words(pool_id: bytes, pool_key: bytes) -> list[str]:
    """Spell a pool key as 26 words."""
    bits = int.from_bytes(pool_key + hashlib.sha256(pool_key).digest()[:1], "big")
    places = [bits >> 11 * at & 0x7FF for at in reversed(range(KEY_WORDS))]
    return [_word_list()[place] for place in places] + _check_words(pool_id, pool_key)


def from_words(words: list[str], pool_id: bytes | None = None) -> bytes:
    """Return the pool key that 24 or 26 words spell.

    Args:
        words: In order, in any case.
        pool_id: The pool's id if known: then the two check words prove the others.

    Raises:
        Invalid: The number of words is wrong, or a word is: see `read`.
    """
    words = [word.lower() for word in words]
    if len(words) not in {KEY_WORDS, ALL_WORDS}:
        raise Invalid(
            f"a recovery kit has {KEY_WORDS} words and 2 check words, here are {len(words)}",
            "write them in order, all on one line or one a line",
        )
    known = _positions()
    wrong = [_unknown(at, word) for at, word in enumerate(words, 1) if word not in known]
    if wrong:
        raise Invalid(f"the recovery kit can't be read: {'; '.join(wrong)}")
    pool_key = _decoded(words, pool_id)
    if pool_key is None:
        raise Invalid(
            "the recovery kit can't be read: each word is one that a kit may have, but together "
            "they are not a key" + _guess(words, pool_id),
            "compare each word and the order with the printed page",
        )
    return pool_key


def _from_payload(payload: re.Match[str]) -> bytes:
    if int(payload[1]) != _PAYLOAD_VERSION:
        raise Invalid(
            f"the recovery kit has version {payload[1]}, which this program does not know",
            "use a newer Holdfast",
        )
    pool_id, pool_key = bytes.fromhex(payload[2]), bytes.fromhex(payload[3])
    if _digest(pool_id, pool_key)[:4] != bytes.fromhex(payload[4]):
        raise Invalid(
            "the code of the recovery kit has a wrong digit in it",
            "scan it again, or type the words",
        )
    return pool_key


def _words_in(text: str) -> list[str]:
    """Find the words of a kit: by their numbers if they have them, else all there are."""
    numbered: dict[int, str] = {}
    for number, word in _NUMBERED.findall(text):
        numbered.setdefault(int(number), word)
    for count in (ALL_WORDS, KEY_WORDS):
        wanted = range(1, count + 1)
        missing = [number for number in wanted if number not in numbered]
        if not missing:
            return [numbered[number] for number in wanted]
    found = re.findall(r"[^\W\d_]+", text)
    if len(numbered) >= KEY_WORDS // 2 and len(found) > ALL_WORDS:
        raise Invalid(
            "the recovery kit can't be read: it has no word "
            + ", ".join(str(number) for number in missing)
        )
    return found


def _unknown(at: int, word: str) -> str:
    near = [known for known in _word_list() if known[:4] == word[:4]] or difflib.get_close_matches(
        word, _word_list(), n=1, cutoff=0.5
    )
    guess = f", did you mean '{near[0]}'?" if near else ""
    return f"word {at}, '{word}', is not in the list{guess}"


def _decoded(words: list[str], pool_id: bytes | None) -> bytes | None:
    """Return the key of words that are all in the list, or None if the check bits disagree."""
    known = _positions()
    bits = 0
    for word in words[:KEY_WORDS]:
        bits = bits << 11 | known[word]
    pool_key = (bits >> 8).to_bytes(KEY_BYTES, "big")
    if hashlib.sha256(pool_key).digest()[0] != bits & 0xFF:
        return None
    checks = words[KEY_WORDS:]
    if checks and pool_id is not None and checks != _check_words(pool_id, pool_key):
        return None
    return pool_key


def _guess(words: list[str], pool_id: bytes | None) -> str:
    """Look for two neighbours in the wrong order, or one wrong word; only if that is certain."""
    if pool_id is None or len(words) != ALL_WORDS:
        return ""
    for at in range(KEY_WORDS - 1):
        swapped = words.copy()
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        if _decoded(swapped, pool_id) is not None:
            return f"; words {at + 1} and {at + 2} are in the wrong order"
    for at in range(ALL_WORDS):
        for word in _word_list():
            if _decoded([*words[:at], word, *words[at + 1 :]], pool_id) is not None:
                return f"; word {at + 1}, '{words[at]}', should be '{word}'"
    return ""


def _digest(pool_id: bytes, pool_key: bytes) -> bytes:
    return hashlib.sha256(_CHECK_LABEL + pool_id + pool_key).digest()


def _check_words(pool_id: bytes, pool_key: bytes) -> list[str]:
    bits = int.from_bytes(_digest(pool_id, pool_key)[:3], "big") >> 2
    return [_word_list()[bits >> 11], _word_list()[bits & 0x7FF]]


@cache
def _word_list() -> list[str]:
    from mnemonic import Mnemonic

    return list(Mnemonic("english").wordlist)


@cache
def _positions() -> dict[str, int]:
    return {word: at for at, word in enumerate(_word_list())}


def _word_lines(words: list[str]) -> str:
    cells = [f"{at:02} {word:<12}" for at, word in enumerate(words, 1)]
    rows = [cells[at : at + 4] for at in range(0, len(cells), 4)]
    return "\n".join(("    " + "".join(row)).rstrip() for row in rows)


def _qr_svg(payload: str) -> str:
    import segno

    svg: str = segno.make_qr(payload, error="m").svg_inline(
        scale=4, border=2, svgclass="code", lineclass=None, omitsize=True
    )
    return svg


_TEXT = Template("""\
HOLDFAST RECOVERY KIT

Whoever holds this page can read everything in the pool. Print it, keep it as
you keep a passport, away from the machines that it protects, and leave no
copy of it on them.

Pool    $pool
Where   $url
Made    $date

The key (the last two words check the others)

$words

When all else is lost

  - Install Holdfast on a machine that reaches the place named above.
  - Write all the words, in this order, into a file there.
  - Run: holdfast init --existing --pool URL --recovery-kit FILE
  - Run: holdfast catalog rebuild
  - Delete the file with the words.

Without Holdfast: all words but the last two are the 32 bytes of the pool
key in BIP39 (English). docs/formats and tools/read_pool.py in the source of
Holdfast say how to read a pool with it.
""")

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Holdfast recovery kit of pool $pool</title>
<style>
@page { size: A4; margin: 16mm 18mm; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 182mm; padding: 8mm 4mm; background: #fff; color: #111;
  font: 10.5pt/1.4 "Liberation Sans", "DejaVu Sans", Arial, sans-serif; }
header { display: flex; gap: 8mm; align-items: center; border-bottom: 0.6mm solid #111;
  padding-bottom: 4mm; }
h1 { font-size: 21pt; line-height: 1.15; margin: 0 0 2mm; }
h2 { font-size: 12.5pt; margin: 6mm 0 2mm; }
p { margin: 0 0 2mm; }
.code { flex: none; width: 46mm; height: 46mm; }
.warning { border: 0.5mm solid #111; padding: 2mm 3mm; margin: 0; font-weight: bold; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 1mm 5mm; margin: 5mm 0 0; }
dt { font-weight: bold; }
dd { margin: 0; overflow-wrap: anywhere; }
dd, ol.words, code { font-family: "Liberation Mono", "DejaVu Sans Mono", monospace; }
ol.words { list-style: none; margin: 0 0 2mm; padding: 0; counter-reset: word; font-size: 12.5pt;
  columns: 4 36mm; column-gap: 6mm; }
ol.words li { counter-increment: word; padding: 0.6mm 0; break-inside: avoid; }
ol.words li::before { content: counter(word, decimal-leading-zero) "\\2002"; color: #555;
  font-size: 9pt; }
ol.words li:nth-child(n + 25) { font-style: italic; }
ol.steps { margin: 0; padding-left: 6mm; }
ol.steps li { margin-bottom: 1mm; }
footer { margin-top: 5mm; border-top: 0.2mm solid #999; padding-top: 2mm; font-size: 9pt;
  color: #333; }
@media print { body { padding: 0; } }
</style>
</head>
<body>
<header>
<div>
<h1>Holdfast recovery kit</h1>
<p class="warning">Whoever holds this page can read everything in the pool. Keep it as you keep
a passport, away from the machines that it protects, and leave no copy of it on them.</p>
</div>
$code
</header>
<dl>
<dt>Pool</dt><dd>$pool</dd>
<dt>Where</dt><dd>$url</dd>
<dt>Made</dt><dd>$date</dd>
</dl>
<h2>The key</h2>
<ol class="words">
$words
</ol>
<p>The last two words check the others. The code at the top says the same as the words.</p>
<h2>When all else is lost</h2>
<ol class="steps">
<li>Install Holdfast on a machine that reaches the place named above.</li>
<li>Write all the words, in this order, or what the code says, into a file there.</li>
<li>Run <code>holdfast init --existing --pool URL --recovery-kit FILE</code></li>
<li>Run <code>holdfast catalog rebuild</code></li>
<li>Delete the file with the words.</li>
</ol>
<footer>Without Holdfast: all words but the last two are the 32 bytes of the pool key in
BIP39 (English). <code>docs/formats</code> and <code>tools/read_pool.py</code> in the source of
Holdfast say how to read a pool with it.</footer>
</body>
</html>
""")
