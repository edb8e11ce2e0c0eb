"""Fixtures: files are written and read without a network."""

import gzip
import json
import socket

import pytest
from rich.console import Console

from moe_jax.commands.data.prepare import prepare


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError("something tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def console():
    return Console(width=200, record=True, file=open("/dev/null", "w"))


@pytest.fixture(scope="session")
def run(console):
    """Prepares a data set and returns what the command returns."""

    def call(name, source, data_dir, **settings):
        return prepare(name, str(source), str(data_dir), console, **settings)

    return call


def dressed(text):
    """Returns a text as the oddest file with the same rows."""
    odd = "\ufeff" + text.removeprefix("\ufeff").replace("\n", "\r\n") + "\r\n\r\n"
    return gzip.compress(odd.encode())


@pytest.fixture(scope="session")
def write():
    """Writes texts (bytes as they are) to files; returns the folder."""

    def call(folder, files, odd=False):
        for name, content in files.items():
            path = folder / (name + ".gz" if odd else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if odd:
                content = dressed(content)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return call


def plain(value):
    """Converts values of TFDS to plain Python values."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


@pytest.fixture(scope="session")
def read_back():
    """Returns the examples that seqio reads, as sorted JSON lines, and the names of the splits."""

    def call(name, data_dir):
        import seqio

        source = seqio.TfdsDataSource(name, tfds_data_dir=str(data_dir), read_only=True)
        return {
            split: sorted(
                json.dumps(plain(example), sort_keys=True)
                for example in source.get_dataset(split, shuffle=False).as_numpy_iterator()
            )
            for split in source.splits
        }

    return call


@pytest.fixture(scope="session")
def as_read():
    """Returns examples in the form of `read_back`."""

    def call(examples):
        return sorted(json.dumps(plain(example), sort_keys=True) for example in examples)

    return call
