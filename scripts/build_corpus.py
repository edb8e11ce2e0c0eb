"""Build the English corpus that ships inside the package.

The input is one or more JSONL files (plain or gzip), or directories of them. Every line is an
object with the fields `text`, `source` and `title`. A long original document may have been cut
into pieces titled `NAME#0`, `NAME#1`, ...: the pieces are put together again in order, so that a
document is a whole chapter or a whole address. The texts are cleaned, split by whole document
into train and validation, and written as `train.jsonl.gz` and `validation.jsonl.gz`. The same
input and arguments always give the same bytes.

Example:

    python scripts/build_corpus.py --input INPUT_DIRECTORY --output moe_jax/data/embedded
"""

import argparse
import collections
import gzip
import hashlib
import io
import json
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

DEFAULT_SOURCES = ("moby_dick", "austen", "sotu")
SPLITS = ("train", "validation")


class Document(NamedTuple):
    """One whole chapter or address."""

    source: str
    title: str
    text: str


# Paragraphs that editors added: volume marks and remarks on printed editions.
_EDITORIAL_PARAGRAPH = re.compile(
    r"(?:volume [ivx\d]+|[\[(](?:at this point|end (?:of )?volume)[^\])]*[\])])", re.IGNORECASE
)
# From such a paragraph on, the rest of the document is an editor's afterword.
_AFTERWORD = re.compile(r"a note on the text", re.IGNORECASE)
# Remarks inside a paragraph: page numbers, footnotes of the edition, reactions of the audience.
_REMARK = re.compile(
    r"\[p\. ?\d+\]"
    r"|\[\d{1,3}\]"
    r"|\[footnote \d+:[^\]]*\]"
    r"|\[at this point[^\]]*\]"
    r"|\[sic\]"
    r"|[\[(](?:laughter|applause)[.!]?[\])]",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"_([^_\n]+)_")
# What is left of a printed table: ruled lines and dots that lead to a number.
_TABLE_RULES = re.compile(r"_{3,}|\.{5,}")
# A full stop stuck to the front of a word is a speck of dust on the scanned page.
_SPECK = re.compile(r"(?<= )\.(?=[a-z])")
# A sentence end with no space before the next sentence: a paragraph break that was lost.
_LOST_BREAK = re.compile(r"(?<=[a-z]{2}[.!?:])(?=[A-Z])")
_PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n\s*")
_HYPHENS_AND_SPACES = str.maketrans({"\u2010": "-", "\u2011": "-", "\u00a0": " ", "\u00ad": None})


def clean_paragraph(text: str) -> str:
    """Returns a paragraph on one line, without markup and editorial remarks."""
    text = _TABLE_RULES.sub(" ", text)
    text = _EMPHASIS.sub(r"\1", text)
    text, remarks = _REMARK.subn(" ", text)
    text = re.sub(r"\s+", " ", text)
    if remarks:
        text = re.sub(r" (?=[.,;:!?](?:\s|$))", "", text)
    return _SPECK.sub("", text).strip()


def clean_text(text: str) -> str:
    """Returns text in NFC with one line per paragraph and a blank line between paragraphs."""
    text = unicodedata.normalize("NFC", text).translate(_HYPHENS_AND_SPACES)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    paragraphs = []
    for raw in _PARAGRAPH_BREAK.split(_LOST_BREAK.sub("\n\n", text)):
        if _AFTERWORD.fullmatch(raw.strip()):
            break
        if _EDITORIAL_PARAGRAPH.fullmatch(raw.strip()):
            continue
        paragraph = clean_paragraph(raw)
        if paragraph:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def find_files(inputs: Sequence[str]) -> list[pathlib.Path]:
    """Returns the JSONL files named by `inputs`, which may be files or directories."""
    files: list[pathlib.Path] = []
    for name in inputs:
        path = pathlib.Path(name)
        if path.is_dir():
            files.extend(
                sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
            )
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"no such file or directory: {name}")
    if not files:
        raise FileNotFoundError(f"no .jsonl or .jsonl.gz files in {', '.join(inputs)}")
    return files


def read_rows(files: Iterable[pathlib.Path]) -> Iterator[dict[str, str]]:
    """Yields the objects of JSONL files."""
    for path in files:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)


def join_pieces(rows: Iterable[dict[str, str]], sources: Sequence[str]) -> list[Document]:
    """Puts the pieces of each document together again.

    Pieces are joined with a blank line. A text that has no paragraphs at all was cut inside its
    one long paragraph, even inside a sentence ("U.S." / "exports"): there a space joins them.

    Args:
      rows: objects with the fields `text`, `source` and `title`, in any order.
      sources: the source names to keep.

    Returns:
      The documents, cleaned, in the order of their source and title.
    """
    pieces: dict[tuple[str, str], dict[int, str]] = collections.defaultdict(dict)
    for row in rows:
        if row["source"] not in sources:
            continue
        title, _, number = row["title"].partition("#")
        parts = pieces[row["source"], title]
        if int(number or 0) in parts:
            raise ValueError(f"two pieces named {row['source']} {row['title']}")
        parts[int(number or 0)] = row["text"].strip()
    documents = []
    for (source, title), parts in pieces.items():
        if sorted(parts) != list(range(len(parts))):
            raise ValueError(f"{source} {title}: pieces {sorted(parts)} are not complete")
        has_paragraphs = any("\n" in part for part in parts.values())
        text = ("\n\n" if has_paragraphs else " ").join(parts[i] for i in sorted(parts))
        documents.append(Document(source, title, clean_text(text)))
    return sorted(documents, key=lambda document: (document.source, natural_key(document.title)))


def natural_key(title: str) -> list[tuple[int, str]]:
    """Returns a sort key that puts chapter_2 before chapter_10."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", title) if p]


def is_wanted(document: Document, sotu_from: int, skip_titles: Sequence[str]) -> bool:
    """Tells whether a document belongs in the corpus."""
    if document.title in skip_titles or not document.text:
        return False
    return document.source != "sotu" or int(document.title[:4]) >= sotu_from


def split_of(document: Document, threshold: int, seed: int) -> str:
    """Returns the split of a document, which depends on its source and title only."""
    key = f"{seed}/{document.source}/{document.title}".encode()
    bucket = int(hashlib.md5(key, usedforsecurity=False).hexdigest(), 16) % 1000
    return "validation" if bucket < threshold else "train"


def split_documents(
    documents: Iterable[Document], threshold: int, seed: int
) -> dict[str, list[Document]]:
    """Splits documents by `split_of`; every source must have some in either split."""
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in documents:
        splits[split_of(document, threshold, seed)].append(document)
    sources = {document.source for split in splits.values() for document in split}
    for name, split in splits.items():
        missing = sources - {document.source for document in split}
        if missing:
            raise ValueError(
                f"no {name} documents of {', '.join(sorted(missing))}: "
                "change --validation_threshold or --split_seed"
            )
    return splits


def write_documents(path: pathlib.Path, documents: Iterable[Document]) -> None:
    """Writes documents as gzipped JSONL; equal documents give equal bytes."""
    lines = [
        json.dumps({"text": d.text, "source": d.source, "title": d.title}, ensure_ascii=False)
        + "\n"
        for d in documents
    ]
    buffer = io.BytesIO()
    # No file name and no time in the header, so that the bytes depend on the documents only.
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as out:
        out.write("".join(lines).encode("utf-8"))
    path.write_bytes(buffer.getvalue())


def table(splits: dict[str, list[Document]]) -> str:
    """Returns a Markdown table of documents and bytes of text by source and split."""
    lines = ["| source | split | documents | bytes | share |", "|---|---|---:|---:|---:|"]
    for name, documents in splits.items():
        counts: collections.Counter[str] = collections.Counter()
        sizes: collections.Counter[str] = collections.Counter()
        for document in documents:
            counts[document.source] += 1
            sizes[document.source] += len(document.text.encode("utf-8"))
        total = sizes.total()
        for source in sorted(counts):
            share = 100 * sizes[source] / total
            lines.append(
                f"| {source} | {name} | {counts[source]} | {sizes[source]:,} | {share:.1f} % |"
            )
        lines.append(f"| all | {name} | {counts.total()} | {total:,} | 100.0 % |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", required=True, help="JSONL files or directories")
    parser.add_argument("--output", required=True, help="directory to write the two files to")
    parser.add_argument("--sources", nargs="+", default=DEFAULT_SOURCES, help="sources to keep")
    parser.add_argument(
        "--sotu_from",
        type=int,
        default=1913,
        help="first year of State of the Union addresses (default: %(default)s)",
    )
    parser.add_argument(
        "--skip_titles",
        nargs="*",
        default=["contents"],
        help="titles to leave out (default: the table of contents of Moby Dick)",
    )
    parser.add_argument(
        "--validation_threshold",
        type=int,
        default=30,
        help="a document is held out if its hash modulo 1000 is below this (default: %(default)s)",
    )
    parser.add_argument(
        "--split_seed",
        type=int,
        default=490,
        help="number that enters the hash: another one gives another split (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    """Builds the corpus."""
    args = parse_arguments()
    documents = [
        document
        for document in join_pieces(read_rows(find_files(args.input)), args.sources)
        if is_wanted(document, args.sotu_from, args.skip_titles)
    ]
    splits = split_documents(documents, args.validation_threshold, args.split_seed)
    output = pathlib.Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    for name, split in splits.items():
        path = output / f"{name}.jsonl.gz"
        write_documents(path, split)
        print(f"{path}: {path.stat().st_size:,} bytes")
    print(table(splits))


if __name__ == "__main__":
    main()
