"""Reads the bytes of a file, decompressed, with a checksum of the stored bytes."""

import hashlib
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

BLOCK = 1 << 22
_GZIP = b"\x1f\x8b"
# Bytes that suffice to recognise the type of a file.
_HEADER = 512
# Types other than text and gzip: offset and magic bytes, description, remedy.
_UNPACK = "unpack it, or pack it with gzip"
_EXPORT = "export its text"
_FOREIGN = (
    (0, b"BZh", "is packed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ\0", "is packed with xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "is packed with zstd", _UNPACK),
    (0, b"PK\x03\x04", "is a zip archive", _UNPACK),
    (257, b"ustar", "is a tar archive", _UNPACK),
    (0, b"%PDF-", "is a PDF document", _EXPORT),
    (0, b"PAR1", "is a Parquet table", _EXPORT),
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        "is a pointer of Git LFS and not the file",
        "get the file with `git lfs pull`",
    ),
)


class UnusableFileError(Exception):
    """A file cannot be used; the message is a predicate of its name: "is empty"."""


class ByteCounter:
    """A counter of bytes that several threads read."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Counts bytes."""
        with self._lock:
            self.bytes += count


def open_file(path: str) -> IO[bytes]:
    """Opens a local or remote file to read its bytes.

    Raises:
        OSError: if it cannot be read.
        tf.errors.OpError: the same for a remote file.
    """
    if "://" in path:
        import tensorflow as tf

        remote: IO[bytes] = tf.io.gfile.GFile(path, "rb")
        return remote
    return open(path, "rb", buffering=0)


class FileStamp(NamedTuple):
    """Size and times of a file, which differ after every change.

    Attributes:
        size: stored bytes.
        modified: mtime in nanoseconds, which programs can set.
        changed: ctime in nanoseconds, which programs cannot set; 0 for a remote file.
    """

    size: int
    modified: int
    changed: int


def file_stamp(path: str) -> FileStamp:
    """Returns the current size and times of a file.

    Raises:
        OSError: if there is no such file.
    """
    if "://" in path:
        import tensorflow as tf

        remote = tf.io.gfile.stat(path)
        return FileStamp(int(remote.length), int(remote.mtime_nsec), 0)
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a file")
    return FileStamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class FileReader:
    """A file that is read once from its start to its end.

    Args:
        path: path of the file.
        counter: counts the bytes that are read.

    Attributes:
        packed: whether it is compressed with gzip, whatever its name.
        stamp: size and times of the file when it was opened.
        plain_members: whether TensorFlow decompresses it to the same bytes: no empty member before
            the last (which it takes for the end) and no padding (which it takes for damage).
    """

    def __init__(self, path: str, counter: ByteCounter | None = None):
        self._path, self._counter = path, counter or ByteCounter()
        self.stamp = file_stamp(path)
        self._hash = hashlib.sha256()
        self._read = 0
        self.packed = False
        self.plain_members = True

    @property
    def checksum(self) -> str:
        """SHA-256 of the stored bytes that were read, the whole file after `blocks` has ended."""
        return self._hash.hexdigest()

    def blocks(self) -> Iterator[bytes]:
        """Yields the contents of the file, decompressed.

        Raises:
            UnusableFileError: if it is damaged, of another type, or changes meanwhile.
        """
        stored = _at_least(_HEADER, self._read_stored())
        first = next(stored, b"")
        _refuse_foreign(first, "")
        self.packed = first.startswith(_GZIP)
        if self.packed:
            unpacked = _at_least(_HEADER, self._decompress(first, stored))
            start = next(unpacked, b"")
            if start.startswith(_GZIP):
                raise UnusableFileError("is packed with gzip twice; unpack it once")
            _refuse_foreign(start, " inside gzip")
            if start:
                yield start
            yield from unpacked
        elif first:
            yield first
            yield from stored
        if file_stamp(self._path) != self.stamp:
            raise UnusableFileError("changes while it is read")

    def _read_stored(self) -> Iterator[bytes]:
        with open_file(self._path) as file:
            while block := file.read(BLOCK):
                self._hash.update(block)
                self._read += len(block)
                self._counter.add(len(block))
                if self._read > self.stamp.size:
                    raise UnusableFileError("changes while it is read")
                yield block

    def _decompress(self, data: bytes, stored: Iterator[bytes]) -> Iterator[bytes]:
        member, size = zlib.decompressobj(31), 0
        while True:
            try:
                block = member.decompress(data, BLOCK)
            except zlib.error as error:
                place = self._read - len(data)
                reason = str(error).partition(": ")[2] or str(error)
                raise UnusableFileError(
                    f"is damaged: gzip cannot unpack it at or after byte {place} ({reason})"
                ) from None
            if block:
                size += len(block)
                yield block
            data = member.unconsumed_tail
            if member.eof:
                data = self._next_member(member, stored)
                if not data:
                    return
                self.plain_members &= size > 0
                member, size = zlib.decompressobj(31), 0
            elif not data and not block:
                data = next(stored, b"")
                if not data:
                    raise UnusableFileError(
                        f"ends too early: the gzip data stop at byte {self._read}"
                    )

    def _next_member(self, member: Any, stored: Iterator[bytes]) -> bytes:
        """Returns the start of the next member; this one may be padded with zeros."""
        data = member.unused_data
        while True:
            rest = data.lstrip(b"\0")
            self.plain_members &= len(rest) == len(data)
            if len(rest) >= len(_GZIP):
                break
            more = next(stored, b"")
            if not more:
                break
            data = rest + more
        if rest and not rest.startswith(_GZIP):
            raise UnusableFileError(
                f"is damaged: the data after byte {self._read - len(rest)} are not gzip"
            )
        return rest


def _refuse_foreign(start: bytes, inside: str) -> None:
    """Raises `UnusableFileError` for the first bytes of other types than text and records."""
    for place, mark, what, remedy in _FOREIGN:
        if start.startswith(mark, place):
            raise UnusableFileError(f"{what}{inside}; {remedy}")


def _at_least(count: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the blocks, the first of them with at least `count` bytes if there are as many."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= count:
            break
    if first:
        yield first
    yield from blocks
