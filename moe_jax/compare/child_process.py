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
    process: subprocess.Popen | None = None
    # Signals that are to be passed on, and the number of those that were.
    received: list[int] = []
    passed_on = 0

    def pass_on() -> None:
        nonlocal passed_on
        while process is not None and passed_on < len(received):
            passed_on += 1
            process.send_signal(received[0] if passed_on == 1 else signal.SIGKILL)

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        pass_on()

    # Before the command is started: a signal in between must not leave it without a parent.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, receive)
    process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, start_new_session=True)
    pass_on()
    threading.Thread(target=_terminate_at_end_of_input, args=(process,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _terminate_at_end_of_input(process: subprocess.Popen) -> None:
    while os.read(0, 1):
        pass
    process.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
