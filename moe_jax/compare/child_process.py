"""Runs a command for as long as the parent lives: `python -m moe_jax.compare.child_process ...`.

When standard input closes, which the end of the parent does, even by SIGKILL, the command gets
SIGTERM: a training run then saves a checkpoint and ends, so that a study that goes on meets no run
of the previous one. SIGTERM and SIGINT are passed on; the second one kills the command.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType


def main(command: Sequence[str]) -> int:
    """Runs a command and returns its exit code, 128 + N if signal N ended it."""
    process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, start_new_session=True)

    received = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number if len(received) == 1 else signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    threading.Thread(target=_terminate_at_end_of_input, args=(process,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _terminate_at_end_of_input(process: subprocess.Popen) -> None:
    while os.read(0, 1):
        pass
    process.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
