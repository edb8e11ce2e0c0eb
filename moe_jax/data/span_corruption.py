"""Lengths of span corruption: tokens of text and masked spans that fill a sequence."""

from moe_jax.errors import UserError

# T5's (Raffel et al. 2020, section 3.1.4).
NOISE_DENSITY = 0.15
MEAN_SPAN = 3.0


def span_corruption_lengths(length: int) -> tuple[int, int, int]:
    """Returns (tokens of text, masked tokens, spans) of the longest text that fits in a sequence.

    Raises:
        UserError: if no text fits.
    """
    for text in range(length - 4, 1, -1):
        noise = min(max(round(text * NOISE_DENSITY), 1), text - 1)
        spans = min(max(round(noise / MEAN_SPAN), 1), text - noise)
        # Every span has a sentinel in the inputs and one in the targets; both have an end.
        if text + 2 * spans + 2 <= length:
            return text, noise, spans
    raise UserError(f"rows of {length} tokens are too short for span corruption")
