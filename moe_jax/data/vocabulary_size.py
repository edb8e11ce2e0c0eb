"""How many tokens a vocabulary has, found without TensorFlow, which takes seconds to import."""

import os

from moe_jax.data.corpus import embedded_file
from moe_jax.errors import UserError

# Sentinel tokens, for span corruption, that T5 has after the SentencePiece model's own.
EXTRA_IDS = 100


def vocabulary_size(path: str) -> int | None:
    """Returns the tokens of a vocabulary file, sentinels included; None if it is not on a disk.

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
        return int(sentencepiece.SentencePieceProcessor(model_file=path).vocab_size()) + EXTRA_IDS
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a SentencePiece model: {reason}") from None
