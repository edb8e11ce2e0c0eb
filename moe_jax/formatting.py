"""Figures and names as people read them. What is not zero is never shown as zero."""

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"))


def count(number: float) -> str:
    """Returns a count: whole below a million, then in millions (M), billions (B), trillions (T)."""
    for scale, letter in _SCALES:
        if abs(number) >= 0.9999 * scale:
            return f"{number / scale:,.1f}{letter}"
    return f"{number:,.0f}"


def decimal(number: float, digits: int) -> str:
    """Returns a number with so many decimals; its first figure where those are all zeros."""
    text = f"{number:,.{digits}f}"
    return f"{number:.1g}" if number and not text.strip("-0.,") else text


def printable(text: str) -> str:
    r"""Returns a text of one line, with what cannot be printed spelt out: `\n`, `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
