"""The vocabulary of cached rows: seqio's SentencePiece vocabulary without TensorFlow."""

from collections.abc import Iterable, Sequence
from typing import Any

from moe_jax.errors import UserError


class RowVocabulary:
    """Encodes and decodes as `seqio.SentencePieceVocabulary` does.

    Args:
        pieces: a SentencePiece model that includes T5's sentinels.
        where: where the model is from, for messages.

    Attributes:
        tokenizer: the `SentencePieceProcessor`.

    Raises:
        UserError: if `pieces` is no SentencePiece model.
    """

    def __init__(self, pieces: bytes, where: str):
        import sentencepiece

        self.tokenizer: Any = sentencepiece.SentencePieceProcessor()
        try:
            self.tokenizer.LoadFromSerializedProto(pieces)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{where} is not a SentencePiece model: {reason}") from None

    @property
    def vocab_size(self) -> int:
        """Number of tokens, sentinels included."""
        return int(self.tokenizer.GetPieceSize())

    @property
    def eos_id(self) -> int:
        """The end-of-sequence token."""
        return int(self.tokenizer.eos_id())

    @property
    def unk_id(self) -> int:
        """The token of what the vocabulary does not have."""
        return int(self.tokenizer.unk_id())

    def encode(self, text: str) -> Sequence[int]:
        """Tokenises a text, without an end-of-sequence token."""
        ids: Sequence[int] = self.tokenizer.EncodeAsIds(text)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of tokens, up to the first end-of-sequence token."""
        size, unknown, end = self.vocab_size, self.unk_id, self.eos_id
        known = [int(i) if i < size else unknown for i in ids]
        if end in known:
            known = known[: known.index(end) + 1]
        return str(self.tokenizer.DecodeIds(known))
