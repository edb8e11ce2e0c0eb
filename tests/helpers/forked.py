"""`moe-jax` as a process of its own, without the seven seconds that its imports take.

A server process imports the libraries once; every run is forked from it, before JAX has started
anything. What a run does is what `python -m moe_jax.cli` would do; that this starts at all is
tested in tests/test_cli.py and tests/e2e/test_processes.py.
"""

import atexit
import contextlib
import faulthandler
import functools
import multiprocessing
import os
import socket
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import compiling

# What `moe-jax train` imports; found by the server without the paths of the tests.
PRELOADED = [
    "moe_jax.cli",
    "moe_jax.commands.training_console",
    "moe_jax.data.pipeline.device_batches",
]
# JAX reads these as it is imported: they are the same for all runs.
ENVIRONMENT = {
    **compiling.ENVIRONMENT,
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    """Returns what starts processes, with its server running."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    return context


def _run(argv: list[str], variables: dict[str, str], out: str, err: str, paths: list[str]) -> None:
    """Runs the command in the new process."""
    os.environ.update(variables)
    sys.path[:0] = paths
    sys.argv = ["moe-jax", *argv]
    for descriptor, path in ((1, out), (2, err)):
        with open(path, "w") as file:
            os.dup2(file.fileno(), descriptor)
    # Stacks go to the file, whatever standard error was in the server.
    faulthandler.enable(2)
    from moe_jax import cli

    code = cli.main(argv)
    # A forked process would leave them out.
    atexit._run_exitfuncs()
    sys.exit(code)


def free_address() -> str:
    """Returns the address of a port of this machine that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Forked:
    """A process that runs `moe-jax`, used like a `subprocess.Popen`.

    Attributes:
        pid: its number.
        out: the file with what it prints.
        err: the file with what it prints to standard error.
    """

    def __init__(
        self,
        argv: list[str],
        log: Path,
        variables: dict[str, str] | None = None,
        paths: list[Path] | None = None,
    ):
        """Starts it.

        Args:
            argv: the command line, from the verb on.
            log: where to write its outputs, with the endings .out and .err.
            variables: of the environment; not those that JAX reads as it is imported.
            paths: where it finds modules.
        """
        # A directory's name may have a dot.
        self.out, self.err = (log.with_name(f"{log.name}{ending}") for ending in (".out", ".err"))
        arguments = (
            list(map(str, argv)),
            dict(variables or {}),
            str(self.out),
            str(self.err),
            list(map(str, paths or [])),
        )
        self._process = _context().Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns the exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end.

        Raises:
            subprocess.TimeoutExpired: if it takes longer than `timeout` seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("moe-jax", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
