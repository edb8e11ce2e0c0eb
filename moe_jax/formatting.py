"""Human-readable numbers and names. Numbers other than zero are never shown as zero."""

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"))


def count(number: float) -> str:
    """Formats a count: whole below a million, then in millions (M), billions (B), trillions (T)."""
    for scale, letter in _SCALES:
        if abs(number) >= 0.9999 * scale:
            return f"{number / scale:,.1f}{letter}"
    return f"{number:,.0f}"


def decimal(number: float, digits: int) -> str:
    """Formats a number with `digits` decimals, or its first significant digit if they are zeros."""
    text = f"{number:,.{digits}f}"
    return f"{number:.1g}" if number and not text.strip("-0.,") else text


def printable(text: str) -> str:
    r"""Escapes unprintable characters of a text, such as `\n` and `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
