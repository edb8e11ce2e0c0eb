"""Child process of the TPU compiler, `python -m moe_jax.pods.compiler_process JOB RESULT` (JSON).

The compiler has a process of its own because it reads its settings when JAX starts, because its
crashes end the process, and because a quick report stops it before code generation (see
`compiler`). The process ends when its standard input closes, which the end of its parent does.
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
        write: called with the results so far: once lowered, once compiled.
    """
    from moe_jax.config_source import ConfigSource
    from moe_jax.cost_model.topologies import parse_topology
    from moe_jax.experiments import load
    from moe_jax.pods.lowering import lower_step

    topology = parse_topology(job["topology"])
    experiment = load(ConfigSource(job["files"], job["bindings"], job["search_paths"]))
    step = lower_step(experiment, topology.devices())
    lowered = {
        "mesh": step.mesh,
        "coordinates": step.coordinates,
        "argument_bytes": step.argument_bytes,
        "bounds": [dataclasses.asdict(bound) for bound in step.bounds],
    }
    write({**lowered, "stage": "lowered"})
    step.lowered.compile()
    write({**lowered, "stage": "compiled"})


def exit_when_input_closes() -> None:
    """Ends this process as soon as its standard input closes."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(job_file: str, result_file: str) -> int:
    """Runs the job of a file and writes the result, or the error, to another file."""
    exit_when_input_closes()
    from moe_jax.errors import UserError

    result = Path(result_file)

    def write(value: dict[str, Any]) -> None:
        # Atomic, because the parent polls the file.
        partial = result.with_suffix(".part")
        partial.write_text(json.dumps(value))
        partial.replace(result)

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
