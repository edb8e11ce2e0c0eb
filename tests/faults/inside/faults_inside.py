"""Faults injected from inside a run: gin imports this module, `MOE_JAX_TEST_FAULT` selects them.

    slow:SECONDS   every batch takes that much longer
    fail:N         the N-th batch that this process asks for raises an OSError
    hang:N         the N-th never comes
    spike:N[-M]    batches N to M make a loss that is not a number
    gate:N:FILE    batch N waits until a file is there
    host:NAME      this process is on another machine
    beat:SECONDS   interval of heartbeats, of which twenty may be missing

Several are separated by commas; without the variable nothing changes.
"""

import dataclasses
import os
import threading
import time
from typing import Any

import numpy as np

VARIABLE = "MOE_JAX_TEST_FAULT"


def install(faults: str) -> None:
    """Puts faults into the training data of this process."""
    from moe_jax.library_output import suppress_library_output

    with suppress_library_output():
        from moe_jax.data.pipeline.input_pipeline import TrainBatches

    for fault in faults.split(","):
        kind, _, value = fault.partition(":")
        if kind in ("host", "beat"):
            be_elsewhere(kind, value)
    original, counted = TrainBatches.__next__, [0]

    def next_batch(batches: Any) -> Any:
        batch = original(batches)
        counted[0] += 1
        for fault in faults.split(","):
            kind, _, value = fault.partition(":")
            batch = afflicted(batch, kind, value, counted[0])
        return batch

    TrainBatches.__next__ = next_batch  # type: ignore


def be_elsewhere(kind: str, value: str) -> None:
    """Replaces the identity of this process, or the interval of heartbeats, of a directory lock."""
    from moe_jax.training.run_directory import directory_lock

    if kind == "host":
        there = dataclasses.replace(
            directory_lock.this_process(), host=value, boot=value, machine=value
        )
        directory_lock.this_process = lambda: there
    else:
        beat = float(value)
        timing = directory_lock.LockTiming(
            heartbeat=beat, timeout=20 * beat, slack=beat, poll=beat / 4
        )
        directory_lock.LockTiming = lambda: timing  # type: ignore


def afflicted(batch: Any, kind: str, value: str, number: int) -> Any:
    """Applies a fault to the batch with the given number."""
    if kind == "slow":
        time.sleep(float(value))
        return batch
    if kind in ("host", "beat"):
        return batch
    if kind == "gate":
        first, _, gate = value.partition(":")
        while number == int(first) and not os.path.exists(gate):
            time.sleep(0.01)
        return batch
    first, _, last = value.partition("-")
    if not int(first) <= number <= int(last or first):
        return batch
    if kind == "fail":
        raise OSError("the disk with the data went away")
    if kind == "hang":
        threading.Event().wait()
    if kind == "spike":
        # The sum of the weights, and with it the count of tokens, stays a number.
        weights_BS = np.array(batch.weights_BS, np.float32)
        weights_BS[0, 0], weights_BS[0, 1] = 3e38, -3e38
        return dataclasses.replace(batch, weights_BS=weights_BS)
    return batch


if os.environ.get(VARIABLE):
    install(os.environ[VARIABLE])
