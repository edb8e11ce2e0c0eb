"""The bytes of a file from the first to the last, unpacked, with the checksum of what is stored."""

import hashlib
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from typing import IO, Any

BLOCK = 1 << 22
_GZIP = b"\x1f\x8b"
# What a file starts with that is neither text nor gzip, and what it is.
_FOREIGN = {
    b"BZh": "is packed with bzip2",
    b"\xfd7zXZ\0": "is packed with xz",
    b"\x28\xb5\x2f\xfd": "is packed with zstd",
    b"PK\x03\x04": "is a zip archive",
}


class Unusable(Exception):
    """Why a file cannot be used, as what follows its name: "is empty"."""


class Meter:
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


def size_and_time(path: str) -> tuple[int, int]:
    """Returns the bytes of a file and the nanoseconds of its last change.

    Raises:
        OSError: if there is no such file.
    """
    if "://" in path:
        import tensorflow as tf

        remote = tf.io.gfile.stat(path)
        return int(remote.length), int(remote.mtime_nsec)
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a file")
    return found.st_size, found.st_mtime_ns


class StoredFile:
    """A file that is read once from its start to its end.

    Args:
        path: of the file.
        meter: counts what is read.

    Attributes:
        packed: whether it is packed with gzip, whatever its name.
        plain_members: whether other programs unpack it to the same bytes: no empty part before
            the last and no padding, which TensorFlow takes for the end and for damage.
    """

    def __init__(self, path: str, meter: Meter | None = None):
        self._path, self._meter = path, meter or Meter()
        self._before = size_and_time(path)
        self._hash = hashlib.sha256()
        self._read = 0
        self.packed = False
        self.plain_members = True

    @property
    def checksum(self) -> str:
        """SHA-256 of the bytes that are stored; of the whole file once it was read to its end."""
        return self._hash.hexdigest()

    @property
    def size(self) -> int:
        """Bytes that are stored."""
        return self._before[0]

    @property
    def modified(self) -> int:
        """Nanoseconds of the last change."""
        return self._before[1]

    def blocks(self) -> Iterator[bytes]:
        """Yields what is in the file, unpacked.

        Raises:
            Unusable: if it is damaged, of a kind that is not read, or changes meanwhile.
        """
        stored = self._stored()
        first = next(stored, b"")
        for start, what in _FOREIGN.items():
            if first.startswith(start):
                raise Unusable(f"{what}; unpack it, or pack it with gzip")
        self.packed = first.startswith(_GZIP)
        if self.packed:
            yield from _at_least(8, self._unpacked(first, stored))
        elif first:
            yield first
            yield from stored
        if size_and_time(self._path) != self._before:
            raise Unusable("changes while it is read")

    def _stored(self) -> Iterator[bytes]:
        with open_file(self._path) as file:
            while block := file.read(BLOCK):
                self._hash.update(block)
                self._read += len(block)
                self._meter.add(len(block))
                if self._read > self.size:
                    raise Unusable("changes while it is read")
                yield block

    def _unpacked(self, data: bytes, stored: Iterator[bytes]) -> Iterator[bytes]:
        member, size = zlib.decompressobj(31), 0
        while True:
            try:
                block = member.decompress(data, BLOCK)
            except zlib.error as error:
                place = self._read - len(data)
                reason = str(error).partition(": ")[2] or str(error)
                raise Unusable(
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
                    raise Unusable(f"ends too early: the gzip data stop at byte {self._read}")

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
            raise Unusable(
                f"is damaged: what follows byte {self._read - len(rest)} is no gzip data"
            )
        return rest


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
