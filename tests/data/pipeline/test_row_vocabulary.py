"""The vocabulary of cached rows is seqio's."""

import pytest

from moe_jax.data.pipeline.row_vocabulary import RowVocabulary
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError


def test_it_encodes_and_decodes_as_seqio_does():
    expected = load_vocabulary("embedded")
    found = RowVocabulary(expected.sp_model, "here")
    for name in ("vocab_size", "eos_id", "unk_id"):
        assert getattr(found, name) == getattr(expected, name)
    for text in ("", "Call me Ishmael.", "naïve <extra_id_0> whale\n\n", "鯨 \x00 \U0001f433"):
        assert list(found.encode(text)) == list(expected.encode(text))
    size, end = expected.vocab_size, expected.eos_id
    words = list(expected.encode("It was the whiteness of the whale"))
    for tokens in ([], words, [*words, end, *words], [0, 2, size - 1, size, size + 7, *words]):
        assert found.decode(tokens) == expected.decode(tokens)


def test_what_is_no_model_is_one_line():
    with pytest.raises(UserError, match="here is not a SentencePiece model: "):
        RowVocabulary(b"\x93NUMPY", "here")
