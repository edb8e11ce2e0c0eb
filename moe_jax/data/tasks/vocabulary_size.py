"""The size of a vocabulary, without TensorFlow, which takes seconds to import."""

import os
from typing import Any

from moe_jax.data.sources.embedded_corpus import embedded_file
from moe_jax.errors import UserError

# T5's sentinel tokens, for span corruption, after the pieces of the SentencePiece model.
EXTRA_IDS = 100


def vocabulary_size(path: str) -> int | None:
    """Returns the number of tokens of a vocabulary, sentinels included; None for a remote file.

    Raises:
        UserError: if there is no such file or it is not a SentencePiece model.
    """
    if "://" in path:
        return None
    if path == "embedded":
        path = str(embedded_file("vocabulary.model"))
    elif not os.path.exists(path):
        raise UserError(
            f"there is no vocabulary {path} (Data.vocabulary); a SentencePiece .model was "
            "expected, or 'embedded'"
        )
    import sentencepiece

    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=path)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a SentencePiece model: {reason}") from None
    check_pieces(path, pieces)
    return int(pieces.vocab_size()) + EXTRA_IDS


def check_pieces(path: str, pieces: Any) -> None:
    """Checks that the `SentencePieceProcessor` of a vocabulary file can be used for training.

    Raises:
        UserError: if it has no token for the end of a document.
    """
    if pieces.eos_id() < 0:
        raise UserError(
            f"{path} has no end-of-sequence token, with which every document ends: make the model "
            "with --eos_id (sentencepiece), or use another for Data.vocabulary"
        )
