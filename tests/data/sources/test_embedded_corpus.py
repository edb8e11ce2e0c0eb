"""The embedded corpus and vocabulary."""

import gzip
import hashlib
import importlib.resources
import json
import re
import unicodedata

import pytest
import sentencepiece

FILES = importlib.resources.files("moe_jax") / "data" / "embedded"
SPLITS = ("train", "validation")
SOURCES = {"austen", "moby_dick", "sotu"}


def read_documents(split: str) -> list[dict[str, str]]:
    """Returns the documents of a split."""
    data = gzip.decompress((FILES / f"{split}.jsonl.gz").read_bytes())
    # Not splitlines(), which also splits at characters such as U+2028.
    return [json.loads(line) for line in data.decode("utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def documents() -> dict[str, list[dict[str, str]]]:
    """Returns the documents of both splits."""
    return {split: read_documents(split) for split in SPLITS}


@pytest.fixture(scope="module")
def vocabulary() -> sentencepiece.SentencePieceProcessor:
    """Returns the vocabulary."""
    return sentencepiece.SentencePieceProcessor(
        model_proto=(FILES / "vocabulary.model").read_bytes()
    )


@pytest.mark.parametrize("split", SPLITS)
def test_every_document_survives_encoding_and_decoding(documents, vocabulary, split):
    for document in documents[split]:
        ids = vocabulary.encode(document["text"])
        assert vocabulary.decode(ids) == document["text"], document["title"]
        assert vocabulary.unk_id() not in ids, document["title"]


@pytest.mark.parametrize(
    "text",
    [" leading", "trailing ", "two  spaces", "\n\na\n b\n", "\ta\r\nb", "£5, 10½ — naïve 😀", ""],
)
def test_texts_unlike_the_corpus_survive(vocabulary, text):
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_ids_join_where_texts_join(vocabulary):
    first, second = "Call me Ishmael.", " Some years ago"
    ids = vocabulary.encode(first) + vocabulary.encode(second)
    assert vocabulary.decode(ids) == first + second


def test_special_ids(vocabulary):
    assert vocabulary.pad_id() == 0
    assert vocabulary.eos_id() == 1
    assert vocabulary.unk_id() == 2
    assert vocabulary.bos_id() == -1
    # seqio adds 100 ids; the sum is a multiple of 128.
    assert (vocabulary.vocab_size() + 100) % 128 == 0


def test_digits_are_single_tokens(vocabulary):
    assert [len(piece.strip("▁")) for piece in vocabulary.encode("1963", out_type=str)] == [1] * 4


def test_splits_share_no_document(documents):
    names = {
        split: [(document["source"], document["title"]) for document in documents[split]]
        for split in SPLITS
    }
    for split in SPLITS:
        assert len(set(names[split])) == len(names[split])
    assert not set(names["train"]) & set(names["validation"])


def test_no_long_validation_paragraph_occurs_in_train(documents):
    train_text = "\n\n".join(document["text"] for document in documents["train"])
    for document in documents["validation"]:
        for paragraph in document["text"].split("\n\n"):
            if len(paragraph) > 200:
                assert paragraph not in train_text, document["title"]


def test_every_source_is_in_both_splits_in_about_the_same_share(documents):
    shares: dict[str, dict[str, float]] = {}
    for split in SPLITS:
        sizes = dict.fromkeys(SOURCES, 0)
        for document in documents[split]:
            sizes[document["source"]] += len(document["text"].encode("utf-8"))
        shares[split] = {source: size / sum(sizes.values()) for source, size in sizes.items()}
        assert all(sizes.values())
    for source in SOURCES:
        assert shares["validation"][source] == pytest.approx(shares["train"][source], abs=0.03)


@pytest.mark.parametrize("split", SPLITS)
def test_texts_are_clean(documents, split):
    for document in documents[split]:
        text, title = document["text"], document["title"]
        assert set(document) == {"text", "source", "title"}
        assert unicodedata.is_normalized("NFC", text), title
        assert not re.search(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f\ufeff\u2581]", text), title
        assert not re.search(r" \n|\n |  |(?<!\n)\n(?!\n)|\n{3}", text), title
        assert text == text.strip(), title


def test_sizes():
    size = sum((FILES / f"{split}.jsonl.gz").stat().st_size for split in SPLITS)
    assert 2_000_000 < size < 5_000_000
    assert (FILES / "vocabulary.model").stat().st_size < 500_000


def test_checksums_are_those_in_the_description():
    description = (FILES / "SOURCES.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"\| `([\w.]+)` \| [\d,]+ \| `([0-9a-f]{64})` \|", description))
    assert set(stated) == {"train.jsonl.gz", "validation.jsonl.gz", "vocabulary.model"}
    for name, checksum in stated.items():
        assert hashlib.sha256((FILES / name).read_bytes()).hexdigest() == checksum, name
