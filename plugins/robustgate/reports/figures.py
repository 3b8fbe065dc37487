"""Figures as a person reads them: fractions as percent, bytes, durations, hashes."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

UNITS = ("B", "kB", "MB", "GB", "TB")
SMALL_HASH = 12
NOTHING = "—"


def tenths(fraction: float) -> str:
    """Return a fraction in percent with one decimal and no unit: ``41.2``.

    Rounded half up from the fraction's shortest decimal form, so that 823 of 2,000 reads 41.2 as on paper, not 41.1
    as the nearest binary number would.
    """
    rounded = (Decimal(repr(float(fraction))) * 100).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return str(rounded or abs(rounded))


def percent(fraction: float) -> str:
    """Return ``41.2 %``."""
    return f"{tenths(fraction)} %"


def points(fraction: float) -> str:
    """Return a difference of two percentages: ``9.1 points``."""
    return f"{tenths(fraction)} points"


def interval(low: float | None, high: float | None) -> str:
    """Return ``[39.6, 42.8]``, in percent, or nothing where there is no interval, or the figure is exact."""
    return "" if low is None or high is None or low == high else f"[{tenths(low)}, {tenths(high)}]"


def level(confidence: float) -> str:
    """Return a confidence with all its digits: ``99 %``, ``99.95 %``."""
    return f"{confidence * 100:.10g} %"


def count(number: int) -> str:
    """Return ``2,000``."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Return ``1 case`` or ``2,000 cases``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clipped(text: str, most: int) -> str:
    """Return a text of at most so many characters; one that was cut ends in three dots."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def minute(moment: str) -> str:
    """Return a moment to the minute: ``2026-11-21 22:38`` of ``2026-11-21T22:38:00+00:00``."""
    return moment[:16].replace("T", " ")


def scaled(number: float) -> str:
    """Return a large number with three digits and K, M or G: ``12.4 M``."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if abs(number) >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.3g}"


def size(number: float) -> str:
    """Return bytes in the largest decimal unit that keeps the number above one: ``312.4 kB``."""
    for unit in UNITS[:-1]:
        if number < 999.95 or (unit == "B" and number < 1000):
            return f"{number:.4g} {unit}"
        number /= 1000
    return f"{number:.4g} {UNITS[-1]}"


def duration(seconds: float) -> str:
    """Return ``0.4 s``, ``2 min 5 s`` or ``1 h 12 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def brief(digest: str) -> str:
    """Return the first digits of a hash, enough to tell two apart."""
    return digest[:SMALL_HASH]


def detail(value: object) -> str:
    """Return a value of a case's `details`: numbers with four digits, anything else as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    if isinstance(value, list | tuple):
        return ", ".join(detail(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {detail(item)}" for key, item in value.items())
    return str(value)
