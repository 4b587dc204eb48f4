"""Sizes, rates, counts and durations as people read and write them.

Binary units (1 KiB = 1024 bytes) throughout. Must not guess: an unknown suffix is an error.
"""

from __future__ import annotations

import re
from datetime import time

from holdfast.base.errors import Invalid

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

_SUFFIXES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_FACTORS = {"": 1, "b": 1} | {
    spelling: 1 << (10 * power)
    for power, letter in enumerate("kmgtpe", start=1)
    for spelling in (letter, f"{letter}b", f"{letter}ib")
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")
_CLOCK_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def format_size(size_bytes: int) -> str:
    """Write a number of bytes with three significant digits: ``1.50 MiB``."""
    sign = "-" if size_bytes < 0 else ""
    value = float(abs(size_bytes))
    if value < 1024:
        return f"{sign}{int(value)} B"
    suffix = 0
    # 1023.95 would be shown as 1024: it belongs to the next unit.
    while value >= 999.5 and suffix < len(_SUFFIXES) - 1:
        value /= 1024
        suffix += 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{sign}{value:.{digits}f} {_SUFFIXES[suffix]}"


def parse_size(text: str) -> int:
    """Read ``64``, ``64k``, ``1.5 MiB`` or ``2GB`` as bytes; units are always binary.

    Raises:
        Invalid: It is not a size.
    """
    match = _SIZE.fullmatch(text)
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise Invalid(f"'{text}' is not a size", "write for example 512, 64k, 10M or 1.5G")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def format_rate(rate_bytes_per_s: float) -> str:
    """Write a rate: ``120 MiB/s``."""
    return f"{format_size(int(rate_bytes_per_s))}/s"


def format_count(count: int) -> str:
    """Write a number of things with separators: ``1,234,567``."""
    return f"{count:,}"


def format_ratio(whole: float, part: float) -> str:
    """Write how many times smaller ``part`` is than ``whole``: ``3.6:1``."""
    if part <= 0:
        return "all known" if whole > 0 else "-"
    ratio = whole / part
    return f"{ratio:.1f}:1" if ratio < 100 else f"{ratio:,.0f}:1"


def format_duration(duration_s: float) -> str:
    """Write a duration with two units at most: ``0.42 s``, ``1 m 05 s``, ``2 d 03 h``."""
    if duration_s < 10:
        return f"{max(duration_s, 0):.2f} s"
    whole = round(duration_s)
    if whole < 60:
        return f"{duration_s:.1f} s" if duration_s < 59.95 else "1 m 00 s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def parse_clock_time(text: str) -> time:
    """Read ``22:00`` or ``7:05`` as a time of day, without a zone.

    Raises:
        Invalid: It is not one.
    """
    match = _CLOCK_TIME.fullmatch(text.strip())
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise Invalid(f"'{text}' is not a time of day", "write for example 22:00")
    return time(int(match[1]), int(match[2]))


def parse_duration(text: str) -> float:
    """Read ``90``, ``1.5h`` or ``1d12h`` as seconds; a bare number is seconds.

    Raises:
        Invalid: It is not a duration.
    """
    compact = "".join(text.split()).lower()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", compact):
        return float(compact)
    parts = list(_DURATION_PART.finditer(compact))
    if not parts or "".join(part[0] for part in parts) != compact:
        raise Invalid(f"'{text}' is not a duration", "write for example 90s, 15m, 1.5h or 7d")
    return sum(float(part[1]) * _DURATION_S[part[2]] for part in parts)
