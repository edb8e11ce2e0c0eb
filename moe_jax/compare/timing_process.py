"""Child process that times the arms' steps: `python -m moe_jax.compare.timing_process JOB RESULT`.

Both are JSON files. All arms are timed in one process, in turn, so that what slows the machine
down for a while slows all of them. The process ends when its standard input closes.
"""

import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from moe_jax import strict_json
from moe_jax.config_source import ConfigSource
from moe_jax.experiments import Experiment, load

# Of the memory that is available, the share that the states of all arms may take together.
_MEMORY_SHARE = 0.4


class TimedArm:
    """The compiled step of an arm, with its state and a batch of its data.

    Args:
        experiment: the configuration.
        on_host: keep the state on the host between two rounds, for lack of device memory.
    """

    def __init__(self, experiment: Experiment, on_host: bool = False):
        from moe_jax.data.pipeline.batch_source import open_source
        from moe_jax.runs.preparation import train_batches
        from moe_jax.training.state import make_state, state_shardings

        partition = experiment.partition()
        model = experiment.language_model(partition)
        batches = train_batches(open_source(experiment.data), experiment.data, partition)
        self._batch, self._on_host = next(batches), on_host
        self._shardings = state_shardings(model, experiment.optimizer)
        state = make_state(model, experiment.optimizer, experiment.train.seed)
        self._step = experiment.train_step(model).lower(state, self._batch).compile()
        self._state: Any = state
        self._put_away()

    def seconds(self) -> float:
        """Runs two steps and returns the wall time of the second, as in training.

        The first step after another program pays for that program's memory.
        """
        if self._on_host:
            self._state = jax.device_put(self._state, self._shardings)
        self._run()
        start = time.perf_counter()
        self._run()
        seconds = time.perf_counter() - start
        self._put_away()
        return seconds

    def _run(self) -> None:
        self._state, _ = self._step(self._state, self._batch)
        jax.block_until_ready(self._state)

    def _put_away(self) -> None:
        if self._on_host:
            self._state = jax.device_get(self._state)


def time_arms(
    experiments: Mapping[str, Experiment], rounds: int, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Times the steps of all arms in turn; each round begins with another arm.

    Args:
        experiments: configurations by arm.
        rounds: number of rounds.
        say: called with the current stage.

    Returns:
        for each arm the seconds of a step in each round, [R].
    """
    on_host = not _fit(list(experiments.values()))
    arms = {}
    for name, experiment in experiments.items():
        say(f"compiling the step of {name}")
        arms[name] = TimedArm(experiment, on_host)
    names, times = list(arms), {name: list[float]() for name in arms}
    gc.collect()
    gc.disable()
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            times[name].append(arms[name].seconds())
    return times


def device_text() -> str:
    """Returns kind and number of the devices, such as `1 x cpu`."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def _fit(experiments: Sequence[Experiment]) -> bool:
    """Returns whether the states of all arms fit into the devices' memory together."""
    from moe_jax.training.memory.memory_estimate import find_limit, state_bytes
    from moe_jax.training.state import abstract_state

    limit = find_limit(jax.local_devices())
    if limit is None:
        return True
    total = sum(
        sum(state_bytes(abstract_state(e.language_model(e.partition()), e.optimizer)).values())
        for e in experiments
    )
    return total <= _MEMORY_SHARE * limit.bytes


def main(job_file: str, result_file: str) -> int:
    """Times the arms of a job file and writes the result, or the error, to another file."""
    from etils import epath

    from moe_jax.errors import UserError
    from moe_jax.training.run_directory.atomic_file import write_atomically

    threading.Thread(target=_exit_when_input_closes, daemon=True).start()
    job = json.loads(Path(job_file).read_text())
    result: dict[str, Any]
    try:
        experiments = {name: load(ConfigSource(**source)) for name, source in job["arms"].items()}
        times = time_arms(experiments, job["rounds"], lambda stage: print(stage, flush=True))
        result = {"seconds": times, "device": device_text()}
    except UserError as error:
        result = {"error": str(error)}
    write_atomically(epath.Path(result_file), strict_json.dumps(result))
    return 1 if "error" in result else 0


def _exit_when_input_closes() -> None:
    import os

    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
