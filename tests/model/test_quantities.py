"""Sizes and durations: what people write, and what is written for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import format_duration, format_size, parse_duration, parse_size
from perijove.model.quantities import MAX_DURATION, MAX_SIZE

UNITS = "kmgtp"
SPELLINGS = ("{}", "{}b", "{}i", "{}ib")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8 << 30),
        ("512M", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("1048576", 1 << 20),
        (" 4 gb ", 4 << 30),
        (".5K", 512),
        (0, 0),
        (2048, 2048),
        (1.5e9, 1_500_000_000),
        ("17b", 17),
    ],
)
def test_sizes_people_write(text: str | float, size: int) -> None:
    assert parse_size(text) == size


@given(st.integers(0, 1 << 50), st.sampled_from(range(5)), st.sampled_from(SPELLINGS), st.booleans())
def test_a_suffix_is_a_power_of_1024_however_it_is_spelt(n: int, power: int, form: str, upper: bool) -> None:
    n >>= 10 * power
    suffix = form.format(UNITS[power])
    assert parse_size(f"{n}{suffix.upper() if upper else suffix}") == n * 1024 ** (power + 1)


@given(st.integers(0, MAX_SIZE))
def test_a_written_size_is_read_back_within_its_precision(size: int) -> None:
    text = format_size(size)
    assert abs(parse_size(text) - size) <= size * 0.05
    assert format_size(parse_size(text)) == text


@given(st.integers(0, MAX_SIZE), st.integers(0, MAX_SIZE))
def test_sizes_keep_their_order(a: int, b: int) -> None:
    small, large = sorted((a, b))
    assert parse_size(small) <= parse_size(large)
    assert parse_size(format_size(small)) <= parse_size(format_size(large))


NO_SIZES = ["", "G", "8X", "8GG", "-1", "1e9", "1,5G", "8 G B", "0x10", "٣G", "nan", True, None, [], {}]


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused_with_what_would_be(text: Any) -> None:
    with pytest.raises(ValueError, match="512M, 8G or a number of bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", [-1, "1025P", MAX_SIZE + 1, 10**400, float("inf"), float("nan"), "9" * 20 + "P"]
)
def test_absurd_sizes_are_refused_with_the_limits(text: str | float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1024P"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (90, 90),
        ("90s", 90),
        ("15m", 900),
        ("1d12h", 129_600),
        ("1d12h30m", 131_400),
        ("1.5h", 5400),
        ("1h 30m", 5400),
        ("1H", 3600),
        ("0.5", 0.5),
        ("2:30", 150),
        ("1:30:00", 5400),
        ("2-00:00:00", 172_800),
        ("1-12:00:30", 129_630),
    ],
)
def test_durations_people_write(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_the_forms_of_a_duration_agree(d: int, h: int, m: int, s: int) -> None:
    seconds = ((d * 24 + h) * 60 + m) * 60 + s + 1
    assert parse_duration(f"{d}-{h:02}:{m:02}:{s + 1:02}") == seconds
    assert parse_duration(f"{d}d{h}h{m}m{s + 1}s") == seconds
    assert parse_duration(seconds) == parse_duration(str(seconds)) == seconds


@given(st.floats(1, MAX_DURATION))
def test_a_written_duration_is_read_back_within_its_precision(seconds: float) -> None:
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= seconds / 24 + 0.5


@given(st.floats(1, MAX_DURATION), st.floats(1, MAX_DURATION))
def test_durations_keep_their_order(a: float, b: float) -> None:
    short, long = sorted((a, b))
    assert parse_duration(format_duration(short)) <= parse_duration(format_duration(long))


NO_DURATIONS = [
    "",
    "h",
    "1y",
    "1h1d",
    "1h1h",
    "1:2:3:4",
    "-5",
    "1e3",
    "٣s",
    "1h,1m",
    "nan",
    True,
    None,
    [],
    {},
]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration_is_refused_with_what_would_be(text: Any) -> None:
    with pytest.raises(ValueError, match=r"90s, 15m, 1d12h or HH:MM:SS"):
        parse_duration(text)


@pytest.mark.parametrize("text", [0, -1, "0", "0s", "0:00", "3651d", 10**400, float("nan"), float("inf")])
def test_absurd_durations_are_refused_with_the_limits(text: str | float) -> None:
    with pytest.raises(ValueError, match="longer than 0 s and at most ten years"):
        parse_duration(text)
