"""The bytes of a file from the first to the last, unpacked, with the checksum of what is stored."""

import hashlib
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

BLOCK = 1 << 22
_GZIP = b"\x1f\x8b"
# So many bytes are enough to see what a file is.
_HEADER = 512
# What is neither text nor gzip: where it has which bytes, what it is, and what to do.
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
    """Why a file cannot be used, as what follows its name: "is empty"."""


class ByteCounter:
    """Bytes that were read, by however many threads."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Counts bytes."""
        with self._lock:
            self.bytes += count


def open_file(path: str) -> IO[bytes]:
    """Opens a file to read its bytes, local or remote.

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
    """What a file looks like from outside; another one after every change.

    Attributes:
        size: bytes that are stored.
        modified: nanoseconds of the last change, as programs set it.
        changed: nanoseconds of the last change of the file or of its name, which no program sets;
            0 for a remote file.
    """

    size: int
    modified: int
    changed: int


def stamp(path: str) -> FileStamp:
    """Returns what a file looks like now.

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
        path: of the file.
        meter: counts what is read.

    Attributes:
        packed: whether it is packed with gzip, whatever its name.
        stamp: of the file when it was opened.
        plain_members: whether other programs unpack it to the same bytes: no empty part before
            the last and no padding, which TensorFlow takes for the end and for damage.
    """

    def __init__(self, path: str, meter: ByteCounter | None = None):
        self._path, self._meter = path, meter or ByteCounter()
        self.stamp = stamp(path)
        self._hash = hashlib.sha256()
        self._read = 0
        self.packed = False
        self.plain_members = True

    @property
    def checksum(self) -> str:
        """SHA-256 of the bytes that are stored; of the whole file once it was read to its end."""
        return self._hash.hexdigest()

    def blocks(self) -> Iterator[bytes]:
        """Yields what is in the file, unpacked.

        Raises:
            UnusableFileError: if it is damaged, of a kind that is not read, or changes meanwhile.
        """
        stored = _at_least(_HEADER, self._stored())
        first = next(stored, b"")
        _refuse_foreign(first, "")
        self.packed = first.startswith(_GZIP)
        if self.packed:
            unpacked = _at_least(_HEADER, self._unpacked(first, stored))
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
        if stamp(self._path) != self.stamp:
            raise UnusableFileError("changes while it is read")

    def _stored(self) -> Iterator[bytes]:
        with open_file(self._path) as file:
            while block := file.read(BLOCK):
                self._hash.update(block)
                self._read += len(block)
                self._meter.add(len(block))
                if self._read > self.stamp.size:
                    raise UnusableFileError("changes while it is read")
                yield block

    def _unpacked(self, data: bytes, stored: Iterator[bytes]) -> Iterator[bytes]:
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
        """Returns the start of the part after this one, which may be padded with zeros."""
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
                f"is damaged: what follows byte {self._read - len(rest)} is no gzip data"
            )
        return rest


def _refuse_foreign(start: bytes, inside: str) -> None:
    """Raises `UnusableFileError` for the first bytes of what is neither text nor records."""
    for place, mark, what, remedy in _FOREIGN:
        if start.startswith(mark, place):
            raise UnusableFileError(f"{what}{inside}; {remedy}")


def _at_least(count: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the blocks, the first of them with so many bytes if there are as many."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= count:
            break
    if first:
        yield first
    yield from blocks
