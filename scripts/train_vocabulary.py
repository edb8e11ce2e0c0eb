r"""Train the SentencePiece vocabulary that ships inside the package.

The input is one or more JSONL files (plain or gzip) with the field `text`, such as
`build_corpus.py` writes. The vocabulary is lossless: decoding the ids of a text gives exactly that
text again, with its newlines and every space. This is checked for all texts of the input (and of
`--check`) before the file is written. Ids 0, 1 and 2 are padding, end of text and unknown.

`seqio.SentencePieceVocabulary(path, extra_ids=100)` adds 100 ids: `--vocab_size 8092` makes a
vocabulary of 8192 ids in all.

Example:

    python scripts/train_vocabulary.py --input moe_jax/data/embedded/train.jsonl.gz \
      --check moe_jax/data/embedded/validation.jsonl.gz \
      --output moe_jax/data/embedded/vocabulary.model --vocab_size 8092 --model_type bpe
"""

import argparse
import gzip
import io
import json
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece

# SentencePiece adds up its statistics thread by thread, and the order of a sum changes its last
# digits: a unigram model trained with two threads differs from one trained with one, while runs
# with the same number of threads agree. So the number is fixed.
NUM_THREADS = 1


def read_texts(files: Iterable[str]) -> Iterator[str]:
    """Yields the field `text` of the objects in JSONL files."""
    for name in files:
        opener = gzip.open if name.endswith(".gz") else open
        with opener(name, "rt", encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)["text"]


def paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """Yields the lines of texts that are not empty.

    The newline is a piece of its own and no other piece contains one, so that training on single
    lines is the same as training on whole texts.
    """
    for text in texts:
        yield from (line for line in text.split("\n") if line)


def train(
    texts: Iterable[str], vocab_size: int, model_type: str, character_coverage: float
) -> bytes:
    """Trains a vocabulary.

    Args:
        texts: the training texts.
        vocab_size: number of pieces, without the ids that seqio adds.
        model_type: `unigram` or `bpe`.
        character_coverage: share of the characters in the texts that get a piece of their own; the
            rarest ones are spelled in bytes.

    Returns:
        The serialized SentencePiece model.
    """
    model = io.BytesIO()
    # One rule, on a code point that no text has (U+FFFE is not a character): with no rule at all
    # the library reports an empty table each time the vocabulary is loaded.
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write("FFFE\tFFFD\n")
        rules.flush()
        _train(texts, model, vocab_size, model_type, character_coverage, rules.name)
    return model.getvalue()


def _train(
    texts: Iterable[str],
    model: io.BytesIO,
    vocab_size: int,
    model_type: str,
    character_coverage: float,
    rules: str,
) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=paragraphs(texts),
        model_writer=model,
        model_type=model_type,
        vocab_size=vocab_size,
        character_coverage=character_coverage,
        # Nothing in the text may be changed: no Unicode normalization, no merging of spaces, no
        # space in front of the text, bytes for the characters that have no piece.
        normalization_rule_tsv=rules,
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        byte_fallback=True,
        user_defined_symbols=["\n"],
        split_digits=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        # Longer lines than this are left out by the trainer; addresses have very long ones.
        max_sentence_length=1 << 24,
        num_threads=NUM_THREADS,
        minloglevel=1,
    )


def check_lossless(model: bytes, texts: Iterable[str]) -> tuple[int, int]:
    """Checks that every text survives encoding and decoding.

    Returns:
        The number of bytes of the texts and the number of their tokens.

    Raises:
        ValueError: if a text comes back changed or has an unknown token.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    num_bytes = num_tokens = 0
    for text in texts:
        ids = processor.encode(text)
        if processor.decode(ids) != text or processor.unk_id() in ids:
            raise ValueError(f"the vocabulary changes the text that starts {text[:60]!r}")
        num_bytes += len(text.encode("utf-8"))
        num_tokens += len(ids)
    return num_bytes, num_tokens


def report(model: bytes, files: Sequence[str]) -> None:
    """Checks the texts of each file and prints bytes, tokens and bytes per token."""
    for name in files:
        num_bytes, num_tokens = check_lossless(model, read_texts([name]))
        print(
            f"{name}: lossless, {num_bytes:,} bytes, {num_tokens:,} tokens, "
            f"{num_bytes / num_tokens:.3f} bytes per token"
        )


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", required=True, help="JSONL files to train on")
    parser.add_argument(
        "--check", nargs="*", default=[], help="further JSONL files to check for losslessness"
    )
    parser.add_argument("--output", required=True, help="the model file to write")
    parser.add_argument(
        "--vocab_size", type=int, required=True, help="pieces, without the ids that seqio adds"
    )
    parser.add_argument("--model_type", choices=("unigram", "bpe"), default="unigram")
    parser.add_argument(
        "--character_coverage",
        type=float,
        default=0.999995,
        help="share of characters with pieces of their own (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    """Trains, checks and writes a vocabulary."""
    args = parse_arguments()
    start = time.monotonic()
    model = train(read_texts(args.input), args.vocab_size, args.model_type, args.character_coverage)
    print(f"trained in {time.monotonic() - start:.1f} s")
    report(model, [*args.input, *args.check])
    output = pathlib.Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(model)
    print(f"{output}: {len(model):,} bytes")


if __name__ == "__main__":
    main()
