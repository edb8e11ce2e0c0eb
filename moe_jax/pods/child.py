"""The process that holds the TPU compiler: `python -m moe_jax.pods.child JOB.json RESULT.json`.

It is a process of its own because the compiler reads its settings when JAX starts, because its
faults end the process, and because an early answer is one where it is stopped (see `compiler`).
It ends when its standard input does, which is when the process that started it has gone.
"""

import dataclasses
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any


def run(job: dict[str, Any], write: Any) -> None:
    """Lowers and compiles the step of a job.

    Args:
        job: `topology`, `files`, `bindings`, `search_paths`.
        write: called with what is known: once lowered, once compiled.
    """
    from moe_jax import experiment
    from moe_jax.config_source import ConfigSource
    from moe_jax.pods.lowering import lower_step
    from moe_jax.pods.topologies import parse

    topology = parse(job["topology"])
    described = experiment.load(ConfigSource(job["files"], job["bindings"], job["search_paths"]))
    step = lower_step(described, topology.devices())
    known = {
        "mesh": step.mesh,
        "coordinates": step.coordinates,
        "argument_bytes": step.argument_bytes,
        "bounds": [dataclasses.asdict(bound) for bound in step.bounds],
    }
    write({**known, "stage": "lowered"})
    step.lowered.compile()
    write({**known, "stage": "compiled"})


def end_with_input() -> None:
    """Ends this process, whatever it is at, once its standard input has ended."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(job_file: str, result_file: str) -> int:
    """Runs the job of a file; its result, or its error, is in the other."""
    end_with_input()
    from moe_jax.errors import UserError

    result = Path(result_file)

    def write(value: dict[str, Any]) -> None:
        # The parent reads while this writes.
        beside = result.with_suffix(".part")
        beside.write_text(json.dumps(value))
        beside.replace(result)

    try:
        run(json.loads(Path(job_file).read_text()), write)
    except UserError as error:
        write({"stage": "refused", "error": str(error)})
        return 1
    except Exception as error:
        known = json.loads(result.read_text()) if result.exists() else {}
        text = str(error)
        write({**known, "stage": "failed", "error": text, "type": type(error).__name__})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
