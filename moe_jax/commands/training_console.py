"""The output of `moe-jax train` on a console."""

import shlex
from typing import Any

from etils import epath
from rich.console import Console

from moe_jax.commands import output
from moe_jax.commands.console import line_printer
from moe_jax.commands.report import print_header, print_results
from moe_jax.commands.samples import next_commands, print_samples
from moe_jax.runs.device_mesh import mesh_summary
from moe_jax.runs.listener import TrainingListener
from moe_jax.runs.loading import Run
from moe_jax.runs.training_result import TrainingResult
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import is_main
from moe_jax.training.monitoring.progress import make_reporter
from moe_jax.training.run_directory.atomic_file import is_remote


class ConsoleListener(TrainingListener):
    """Prints the messages and the progress of a training run."""

    def __init__(self, console: Console):
        super().__init__(make_reporter(console))
        self._console, self._say = console, line_printer(console)

    def message(self, line: str) -> None:
        """Prints a line."""
        self._say(line)

    def directory_acquired(self, directory: epath.Path) -> None:
        """Sets a log in the run directory for output without a reader."""
        if is_main() and not is_remote(directory):
            output.log_to(str(directory / output.LOG_FILE))

    def starting(self, run: Run, partition: Partition) -> None:
        """Prints the header of the run."""
        mesh = mesh_summary(partition) if partition.is_sharded else None
        print_header(self._console, run.experiment, run.directory, mesh)


def print_training_result(
    console: Console, run: Run, result: TrainingResult, program: str
) -> dict[str, Any]:
    """Prints the last evaluation, the sample and the next commands; returns the figures.

    Args:
        console: the console of this process.
        run: the run.
        result: its result; without figures, on all processes but the first, nothing is printed.
        program: this program, as the user can type it.
    """
    if not result.figures:
        return {}
    if result.best_is:
        line_printer(console)(
            f"The best evaluation ({result.best_is}): step {result.figures['step']}"
        )
    print_results(console, result.figures, run.experiment.active_router)
    if result.sample is not None:
        answer = result.has_answer
        heading = "Asked of held-out data" if answer else "A sample that it wrote"
        how = "causal routing" if answer else "causal routing, no prompt"
        console.print(f"\n{heading} ({how}):", style="bold")
        print_samples(console, result.prompt if answer else "", [result.sample], answer)
    say = line_printer(console)
    say(f"\nRun directory: {shlex.quote(str(run.directory))}")
    console.print("\nNext:", style="bold")
    for line in next_commands(program, str(run.directory), run.experiment.data, result.prompt):
        say(f"  {line}")
    return {**result.figures, "run_directory": str(run.directory)}
