"""The lock on a directory, with fake clocks and machines."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time

import pytest
from etils import epath

from moe_jax.errors import UserError
from moe_jax.training.run_directory import directory_lock, lock_file
from moe_jax.training.run_directory.directory_lock import Clock, DirectoryLock, LockTiming
from moe_jax.training.run_directory.lock_file import OWNER_FILE, read_lock
from moe_jax.training.run_directory.process_identity import (
    ProcessIdentity,
    this_process,
)

HERE = this_process()
ELSEWHERE = ProcessIdentity("elsewhere", HERE.process, HERE.started, "boot-2", "ns", "machine-2")
# Another container on this machine, in which the same number is another process.
CONTAINER = dataclasses.replace(HERE, host="container", namespace="pid:[1]")
UNUSED_PROCESS = 2**22 + 1  # More than the kernel gives out.


class World:
    """A fake clock that advances during `sleep`, with events at given times."""

    def __init__(self, tmp_path):
        self.directory = epath.Path(tmp_path)
        self.now, self.lines, self.events = 1_000_000.0, [], []

    def sleep(self, seconds):
        self.now += seconds
        for moment, event in list(self.events):
            if moment <= self.now:
                self.events.remove((moment, event))
                event()

    def owner(self, identity=HERE, directory=None, **more):
        return DirectoryLock(
            self.directory if directory is None else directory,
            ["moe-jax", "train"],
            self.lines.append,
            identity=identity,
            clock=Clock(lambda: self.now, lambda: self.now, self.sleep),
            **more,
        )

    def held(self, identity, age=0.0):
        """Locks the directory for another process, with a last heartbeat of the given age."""
        owner = self.owner(identity)
        owner.acquire()
        self.beat(age)
        return owner

    def beat(self, age=0.0):
        os.utime(self.directory / OWNER_FILE, (self.now - age, self.now - age))

    def host(self):
        return read_lock(self.directory).identity.host


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_second_start_is_refused_with_who_and_since_when(world):
    with world.owner():
        second = world.owner(dataclasses.replace(HERE, process=UNUSED_PROCESS))
        with pytest.raises(UserError) as refused:
            second.acquire()
        said = str(refused.value)
        assert f"is in use by process {HERE.process} on {HERE.host}" in said
        assert "since 1970-01-12T13:46:40+00:00: moe-jax train." in said
        assert f"(kill {HERE.process})" in said
        second.release()
        assert world.host() == HERE.host
    assert read_lock(world.directory) is None
    assert os.listdir(world.directory) == []


@pytest.mark.parametrize(
    "dead",
    [
        dataclasses.replace(HERE, process=UNUSED_PROCESS),
        # The number is another process's now.
        dataclasses.replace(HERE, started="1"),
        # The machine was started again.
        dataclasses.replace(HERE, boot="before", machine="m"),
    ],
)
def test_a_dead_owner_is_taken_over_at_once(world, dead):
    world.held(dead)
    before = world.now
    here = dataclasses.replace(HERE, machine="m")
    world.owner(here).acquire()
    assert world.now == before
    (line,) = world.lines
    assert f"is taken over from process {dead.process} on {HERE.host} (since 1970-" in line
    assert read_lock(world.directory).identity == here


@pytest.mark.parametrize("other", [ELSEWHERE, CONTAINER])
# The clocks of two machines: in step, an hour ahead, an hour behind.
@pytest.mark.parametrize("age", [10.0, -3600.0, 3600.0])
def test_an_owner_elsewhere_that_gives_signs_of_life_is_let_be(world, other, age):
    world.held(other, age)
    start = world.now
    world.events.append((start + 14, lambda: world.beat(age)))
    with pytest.raises(UserError, match=f"in use by process {other.process} on {other.host}"):
        world.owner().acquire()
    assert world.now - start < 16
    assert world.host() == other.host


@pytest.mark.parametrize(("age", "seconds"), [(10.0, 80), (-3600.0, 90), (3600.0, 20)])
def test_an_owner_elsewhere_that_gives_none_is_taken_over(world, age, seconds):
    world.held(ELSEWHERE, age)
    start = world.now
    world.owner().acquire()
    assert world.now - start == seconds
    assert "cannot be inspected from here" in world.lines[0]
    assert f"in {seconds} s it is taken over" in world.lines[0]
    assert "is taken over from" in world.lines[1]
    assert world.host() == HERE.host


def test_an_owner_elsewhere_that_ends_meanwhile_leaves_the_place(world):
    held, start = world.held(ELSEWHERE), world.now
    world.events.append((start + 5, held.release))
    world.owner().acquire()
    assert world.now - start == 5
    assert world.host() == HERE.host


def test_another_that_is_faster_is_let_be(world):
    world.held(ELSEWHERE)
    third = world.owner(dataclasses.replace(ELSEWHERE, host="third"))

    def take():
        world.events.clear()
        (world.directory / OWNER_FILE).unlink()
        third.acquire()

    world.events.append((world.now + 85, take))
    with pytest.raises(UserError, match="on third"):
        world.owner().acquire()


def test_one_that_stood_still_finds_out_and_writes_no_more(world):
    """After SIGSTOP or the migration of its virtual machine, an owner resumes without its lock."""
    first, reasons = world.held(ELSEWHERE, age=100), []
    first.on_lost(reasons.append)
    second = world.owner()
    second.acquire()
    taken = read_lock(world.directory)
    with pytest.raises(UserError) as stopped:
        first.check()
    assert f"taken over by process {HERE.process} on {HERE.host}" in str(stopped.value)
    assert "process" in reasons[0]
    assert reasons == [str(stopped.value)]
    first.heartbeat()
    first.release()
    assert read_lock(world.directory) == taken
    with pytest.raises(UserError, match="taken over"):
        first.check()
    second.check()


def test_one_that_ends_before_it_finds_out_leaves_the_others_file(world):
    first = world.held(ELSEWHERE, age=100)
    world.owner().acquire()
    first.release()
    assert world.host() == HERE.host


def test_nobody_looks_while_another_takes_over(world, monkeypatch):
    world.held(dataclasses.replace(HERE, process=UNUSED_PROCESS))
    refused = []

    def start():
        try:
            world.owner().acquire()
        except UserError as error:
            refused.append(error)

    meanwhile = threading.Thread(target=start)
    write = directory_lock.write_lock

    def slowly(*arguments):
        if not meanwhile.ident:
            meanwhile.start()
            time.sleep(0.2)
        return write(*arguments)

    monkeypatch.setattr(directory_lock, "write_lock", slowly)
    world.owner().acquire()
    meanwhile.join()
    assert len(refused) == 1


def test_a_beat_renews_the_sign_and_nothing_else(world):
    held = world.held(HERE, age=60)
    before = read_lock(world.directory)
    held.heartbeat()
    after = read_lock(world.directory)
    assert after.text == before.text
    assert after.time > before.time


def test_a_file_removed_by_hand_is_written_again(world):
    held = world.held(HERE)
    text = read_lock(world.directory).text
    (world.directory / OWNER_FILE).unlink()
    held.check()
    assert read_lock(world.directory).text == text


def test_a_directory_that_is_gone_is_not_made_anew(tmp_path):
    world = World(tmp_path / "run")
    world.directory.mkdir()
    held = world.held(HERE)
    shutil.rmtree(world.directory)
    held.check()
    held.release()
    assert not world.directory.exists()


def test_a_copy_of_a_directory_is_free(world, tmp_path):
    world.held(HERE)
    copy = epath.Path(shutil.copytree(tmp_path, tmp_path.parent / "copy"))
    world.owner(directory=copy).acquire()
    with pytest.raises(UserError, match="in use"):
        world.owner().acquire()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"identity": 3}', '{"identity": {"pid": 3}}'])
def test_a_file_of_nobody_known_is_watched(world, text):
    (world.directory / OWNER_FILE).write_text(text)
    world.beat(age=80)
    start = world.now
    world.owner().acquire()
    assert world.now - start == 20
    assert "an unknown host" in world.lines[0]


def test_an_object_store_where_two_write_at_once(world, monkeypatch):
    """Without locks and links the last writer owns the directory; the previous one notices."""
    monkeypatch.setattr(lock_file, "is_remote", lambda path: True)
    monkeypatch.setattr(lock_file, "write_atomically", lambda path, text: path.write_text(text))
    first, second = world.owner(), world.owner(ELSEWHERE)
    with monkeypatch.context() as patch:
        # Both looked before either wrote.
        patch.setattr(directory_lock, "read_lock", lambda directory: None)
        first.acquire()
        second.acquire()
    start = world.now
    with pytest.raises(UserError, match=r"taken over by process .* on elsewhere"):
        first.check()
    # Long enough for the other to have written, too.
    assert world.now - start == LockTiming().settle
    second.check()
    before = read_lock(world.directory)
    second.heartbeat()
    after = read_lock(world.directory)
    assert after.token == before.token
    assert after.text != before.text


@pytest.mark.parametrize("left", [False, True])
def test_of_many_that_start_at_once_one_has_it(world, left):
    if left:
        world.held(dataclasses.replace(HERE, process=UNUSED_PROCESS))
    all_owners, refused = [world.owner() for _ in range(16)], []
    gate = threading.Barrier(len(all_owners))

    def start(owner):
        gate.wait()
        try:
            owner.acquire()
        except UserError:
            refused.append(owner)

    threads = [threading.Thread(target=start, args=(owner,)) for owner in all_owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == len(all_owners) - 1
    (holder,) = set(all_owners) - set(refused)
    holder.check()
    assert os.listdir(world.directory) == [OWNER_FILE]


def test_a_file_system_without_links_or_locks(world, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lock_file.os, "link", refuse)
    monkeypatch.setattr(lock_file, "_lock", refuse)
    with world.owner(), pytest.raises(UserError, match="in use"):
        world.owner().acquire()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write to the directory .*: No such file"):
        World(tmp_path / "none").owner().acquire()


def test_the_end_by_an_error_or_a_signal_leaves_the_directory(world, monkeypatch):
    with pytest.raises(KeyboardInterrupt), world.owner():
        raise KeyboardInterrupt
    assert read_lock(world.directory) is None
    sent = []
    monkeypatch.setattr(directory_lock.os, "kill", lambda *what: sent.append(what))
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    with world.owner():
        signal.raise_signal(signal.SIGTERM)
        assert sent == [(os.getpid(), signal.SIGTERM)]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert read_lock(world.directory) is None
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_thread_beats_by_itself(world):
    with world.owner(timing=LockTiming(heartbeat=0.02, settle=0.02)):
        world.beat(age=100)
        old = read_lock(world.directory)
        deadline = time.monotonic() + 10
        while read_lock(world.directory) == old and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_lock(world.directory).time > old.time + 50


def test_the_file_is_json_with_what_a_person_asks(world):
    world.held(HERE)
    record = json.loads((world.directory / OWNER_FILE).read_text())
    assert record["identity"]["host"] == HERE.host
    assert record["identity"]["process"] == os.getpid()
    assert record["since"] == "1970-01-12T13:46:40+00:00"
    assert record["command"] == "moe-jax train"
    assert record["directory"] == str(world.directory)
