"""Text from tokens as they are made, without a part of a character."""

from collections.abc import Callable, Iterable, Iterator

# What vocabularies decode bytes to that are not a whole character.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def stream_text(decode: Callable[[list[int]], str], tokens: Iterable[list[int]]) -> Iterator[str]:
    """Yields pieces of text that together are the decoded tokens.

    All tokens are decoded anew for each piece, because a token's text can depend on those before
    it. Replacement characters at the end are kept back: with the next bytes they may become a
    character.

    Args:
        decode: returns the text of tokens from the start.
        tokens: the next tokens, a few at a time.
    """
    known: list[int] = []
    shown = ""
    for more in tokens:
        known += more
        text = decode(known)
        whole = text.rstrip(_REPLACEMENT)
        if len(whole) > len(shown) and whole.startswith(shown):
            yield whole[len(shown) :]
            shown = whole
    text = decode(known)
    if len(text) > len(shown) and text.startswith(shown):
        yield text[len(shown) :]
