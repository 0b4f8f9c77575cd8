import pytest

from collegium.formatting import count, duration, number, percent, plural, printable


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (83892, "83.9 k"), (999_999, "1.00 M"), (25_014_784, "25.0 M"), (8.1e9, "8.10 G")],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (100, "2 min"), (4000, "1 h 7 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_have_a_minus_sign_and_where_asked_a_plus() -> None:
    assert (number(-1.5), number(1.5), number(1.5, 1, sign=True)) == ("−1.50", "1.50", "+1.5")
    assert percent(0.0267) == "2.67"


def test_one_is_singular() -> None:
    assert (plural(1, "run"), plural(1200, "run")) == ("1 run", "1,200 runs")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ffl · 2xresnet20, 3 × «é»", "ffl · 2xresnet20, 3 × «é»"),
        ("\x1b]0;title\x07name", "]0;titlename"),
        ("\x1b[31mred\x9b0m", "[31mred0m"),
        ("two\r\nlines\tand\u2028more", "two  lines and more"),
        ("abc\u202edef\u2066", "abcdef"),
        ("\ud800", ""),
        ("می‌خواهم", "می‌خواهم"),
    ],
)
def test_what_is_printed_controls_no_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
