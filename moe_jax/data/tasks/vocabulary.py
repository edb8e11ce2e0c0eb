"""Vocabularies: SentencePiece models with T5's sentinels on top."""

import functools

import numpy as np
import seqio
import tensorflow as tf

from moe_jax.data.sources.embedded_corpus import embedded_file
from moe_jax.data.tasks.vocabulary_size import EXTRA_IDS, check_pieces
from moe_jax.errors import UserError, nearest


@functools.cache
def load_vocabulary(path: str) -> seqio.SentencePieceVocabulary:
    """Loads the SentencePiece vocabulary at `path`, or the package's own for "embedded".

    Raises:
        UserError: if there is no such file, or it is no SentencePiece model with an end token.
    """
    if path == "embedded":
        path = str(embedded_file("vocabulary.model"))
    elif not tf.io.gfile.exists(path):
        raise UserError(
            f"there is no vocabulary {path}; Data.vocabulary is a SentencePiece .model, or "
            f"'embedded' for the package's own.{nearest(path, ['embedded'])}"
        )
    vocabulary = seqio.SentencePieceVocabulary(path, extra_ids=EXTRA_IDS)
    try:
        _ = vocabulary.vocab_size
    except Exception as error:
        raise UserError(f"{path} is not a SentencePiece model: {error}") from None
    check_pieces(path, vocabulary.tokenizer)
    return vocabulary


def bytes_of_tokens(vocabulary: seqio.SentencePieceVocabulary, size: int) -> np.ndarray:
    """Returns the number of UTF-8 bytes of each token, [size] (0 for control tokens).

    Their sum over the tokens of a text in a lossless vocabulary is the size of the text.
    """
    pieces = vocabulary.tokenizer
    lengths = np.zeros(max(size, vocabulary.vocab_size), np.int32)
    for index in range(pieces.get_piece_size()):
        if pieces.is_byte(index):
            lengths[index] = 1
        elif not (pieces.is_control(index) or pieces.is_unknown(index)):
            lengths[index] = len(pieces.id_to_piece(index).replace("\u2581", " ").encode("utf-8"))
    return lengths[:size]
