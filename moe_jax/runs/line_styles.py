"""Colours and styles of the lines in all plots."""

# Okabe and Ito's colours, which colour-blind readers can tell apart; yellow is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STYLES = ("-", "--", "-.", ":")


def line_style(number: int) -> dict[str, str]:
    """Returns matplotlib's `color` and `linestyle` of the line with a number, from 0 on."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _STYLES[number // len(COLOURS) % len(_STYLES)],
    }
