"""Pieces of text: together the whole text, and never a part of a character."""

import pytest

from moe_jax.runs.text_stream import stream_text

TEXT = "naïve 鯨 \N{WHALE}!"


def decode(tokens):
    """A vocabulary of bytes, which decodes parts of characters as SentencePiece does."""
    return bytes(tokens).decode("utf-8", errors="replace")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pieces_of_bytes_are_whole_characters(size):
    data = list(TEXT.encode())
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    pieces = list(stream_text(decode, chunks))
    assert "".join(pieces) == TEXT
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    if size == 1:
        assert pieces == list(TEXT)


def test_a_text_that_is_cut_inside_a_character_ends_as_it_is_decoded():
    data = list(TEXT.encode())[:-3]
    assert "".join(stream_text(decode, [data])) == decode(data)


def test_no_tokens_are_no_pieces():
    assert list(stream_text(decode, [[], []])) == []
