"""Sizes, rates and durations as people read and write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import units
from holdfast.base.errors import Invalid


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (150 * 1024, "150 KiB"),
        (1024 * 1024 - 1, "1.00 MiB"),
        (3 * units.GIB // 2, "1.50 GiB"),
        (25 * units.TIB, "25.0 TiB"),
        (-2048, "-2.00 KiB"),
    ],
)
def test_sizes_are_written_with_three_digits(size_bytes: int, text: str) -> None:
    assert units.format_size(size_bytes) == text


@given(st.integers(min_value=0, max_value=1 << 63))
def test_a_size_is_never_wider_than_nine_columns(size_bytes: int) -> None:
    assert len(units.format_size(size_bytes)) <= 9


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_written_size_reads_back_within_its_digits(size_bytes: int) -> None:
    read = units.parse_size(units.format_size(size_bytes))
    assert abs(read - size_bytes) <= max(size_bytes, 1) * 0.006


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512", 512),
        ("64k", 65536),
        ("64 KiB", 65536),
        ("1.5M", 3 << 19),
        ("2GB", 2 << 30),
        (" 3 tib ", 3 << 40),
    ],
)
def test_sizes_are_read_in_binary_units(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "k", "-1", "1e3", "1.2.3M", "5 parsecs", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0.00 s"),
        (9.994, "9.99 s"),
        (59.96, "1 m 00 s"),
        (61, "1 m 01 s"),
        (3599.6, "1 h 00 m"),
        (90061, "1 d 01 h"),
    ],
)
def test_durations_are_written_with_two_units(duration_s: float, text: str) -> None:
    assert units.format_duration(duration_s) == text


@pytest.mark.parametrize(
    ("text", "duration_s"), [("90", 90), ("1.5h", 5400), ("1d 12h", 129600), ("250ms", 0.25)]
)
def test_durations_are_read(text: str, duration_s: float) -> None:
    assert units.parse_duration(text) == duration_s


@pytest.mark.parametrize("text", ["", "h", "5 years", "1h-2m", "-3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        units.parse_duration(text)


def test_a_ratio_without_new_data_says_so() -> None:
    assert units.format_ratio(100, 0) == "all known"
    assert units.format_ratio(0, 0) == "-"
    assert units.format_ratio(36, 10) == "3.6:1"
    assert units.format_rate(2048) == "2.00 KiB/s"
    assert units.format_count(1234567) == "1,234,567"
