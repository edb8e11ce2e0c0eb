"""Faults: each is injected into a run, and the same command is run again."""

import contextlib
import dataclasses
import functools
import random
import signal
import time

from child import Ended, Running
from harness import EVERY, Home
from metadata_server import MetadataServer
from on_disk import losses, saved, saving

from moe_jax.training.fault_tolerance.preemption import PREEMPTED

SLOW = "slow:0.3"
BEAT = "beat:0.5"
ELSEWHERE = f"{BEAT},host:elsewhere"


@dataclasses.dataclass(frozen=True)
class Case:
    """The outcome of a fault.

    Attributes:
        ended: the process that had the fault.
        reached: the last step of its record.
        saved: the last complete checkpoint that it left; 0 for none.
        resumed: the same command, run again without the fault.
        same: whether the run then has the losses of one without a fault, to the last digit.
        unrecorded: steps that its record lacks in the end.
        refused: the same command, run meanwhile on this machine and on another.
    """

    ended: Ended
    reached: int
    saved: int
    resumed: Ended
    same: bool
    unrecorded: list[int]
    refused: list[Ended] = dataclasses.field(default_factory=list)


def again(home: Home, ended: Ended, *arguments: str, fault: str = "") -> Case:
    """Runs the same command again."""
    directory = ended.directory
    reached, kept = max(losses(directory), default=0), max(saved(directory), default=0)
    resumed = home.run(str(directory), *arguments, fault=fault)
    return case_of(home, ended, reached, kept, resumed)


def case_of(home: Home, ended: Ended, reached: int, kept: int, resumed: Ended) -> Case:
    """Compares the end with that of the run without a fault."""
    directory = ended.directory
    same, lacking = home.same_end(directory), home.unrecorded(directory)
    return Case(ended, reached, kept, resumed, same, lacking)


def sigterm(home: Home) -> Case:
    """SIGTERM during training."""
    directory = home.copy_of_stopped("sigterm")
    return again(home, dataclasses.replace(home.stopped, directory=directory))


def sigint(home: Home) -> Case:
    """Ctrl-C during training."""
    assert home.reference
    running = home.start("sigint", fault=SLOW)
    running.wait_for_step(5)
    return again(home, running.signal(signal.SIGINT))


def preempted(home: Home) -> Case:
    """The cloud's notice of pre-emption."""
    assert home.reference
    with contextlib.closing(MetadataServer()) as server:
        running = home.start("preempted", fault=SLOW, MOE_JAX_METADATA_URL=server.url)
        running.wait_for_step(5)
        # Not asked: then there is nobody to wait for.
        if server.waiting[PREEMPTED].is_set():
            server.set(PREEMPTED, "TRUE")
        return again(home, running.end())


def killed(home: Home) -> Case:
    """kill -9 at a random moment."""
    assert home.reference
    # Before it, two more trainings are tried in the same directory.
    gate = home.directory / "gate"
    running = home.start("killed", fault=f"{SLOW},{BEAT},gate:6:{gate}")
    running.wait_for_step(4)
    others = [home.start("killed", fault=fault) for fault in (BEAT, ELSEWHERE)]
    refused = [other.end() for other in others]
    gate.touch()
    time.sleep(random.uniform(0, 1.5))
    case = again(home, running.signal(signal.SIGKILL), fault=ELSEWHERE)
    return dataclasses.replace(case, refused=refused)


def killed_in_save(home: Home) -> Case:
    """kill -9 while a checkpoint is being written."""
    assert home.reference
    running = home.start("killed_in_save", fault=SLOW)
    is_saving = functools.partial(_is_saving, running)
    running.wait_for(is_saving, pause=0.001)
    # Standing still it cannot end the save between the look and the kill.
    running.process.send_signal(signal.SIGSTOP)
    while not is_saving():
        running.process.send_signal(signal.SIGCONT)
        running.wait_for(is_saving, pause=0.001)
        running.process.send_signal(signal.SIGSTOP)
    return again(home, running.signal(signal.SIGKILL))


def _is_saving(running: Running) -> bool:
    return max(saving(running.directory), default=0) >= 2 * EVERY


def killed_after_save(home: Home) -> Case:
    """kill -9 as soon as a checkpoint is complete."""
    assert home.reference
    running = home.start("killed_after_save", fault="slow:1")
    running.wait_for(lambda: max(saved(running.directory), default=0) >= 4 * EVERY, pause=0.001)
    return again(home, running.signal(signal.SIGKILL))


def source_fails(home: Home) -> Case:
    """The training data cannot be read any more."""
    assert home.reference
    return again(home, home.run("source_fails", fault="slow:0.1,fail:8"))


def source_hangs(home: Home) -> Case:
    """The training data do not come any more."""
    assert home.reference
    limits = ["--gin.Watchdog.timeout=8", "--gin.Watchdog.pause_timeout=100"]
    ended = home.run("source_hangs", *limits, fault="slow:0.1,hang:8")
    return again(home, ended, *limits)


def spike(home: Home) -> Case:
    """One batch whose loss is not a number."""
    assert home.reference
    ended = home.run("spike", fault="spike:6")
    reached, kept = max(losses(ended.directory), default=0), max(saved(ended.directory), default=0)
    return case_of(home, ended, reached, kept, ended)


def diverged(home: Home) -> Case:
    """A loss that is not a number from a step on."""
    assert home.reference
    steps = "--gin.STEPS=60"
    return again(home, home.run("diverged", steps, fault="spike:6-1000"), steps)


CASES = [
    sigterm,
    sigint,
    preempted,
    killed,
    killed_in_save,
    killed_after_save,
    source_fails,
    source_hangs,
    spike,
    diverged,
]
