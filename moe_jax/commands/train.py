"""`moe-jax train`: train to the last step, evaluate, write a sample, say what can be done next."""

import functools
import shlex
from typing import TYPE_CHECKING, Any

import jax
from etils import epath
from rich.console import Console

from moe_jax import config, experiment
from moe_jax.commands.quiet import quiet
from moe_jax.commands.report import print_header, print_results
from moe_jax.commands.start import (
    make_checked_partition,
    make_console,
    mesh_line,
    mesh_sizes,
)
from moe_jax.errors import Interrupted, UserError
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.perplexity import Evaluator
from moe_jax.experiment import Experiment
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import barrier, is_main, together
from moe_jax.training import run_directory
from moe_jax.training.account import Account
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.loop import Curriculum, Instruments, Loop, Stream
from moe_jax.training.memory_estimate import CheckedStep, Limit, check_state, find_limit
from moe_jax.training.profiling import Profiler
from moe_jax.training.progress import make_reporter
from moe_jax.training.state import abstract_state, make_state
from moe_jax.training.watchdog import Watchdog
from moe_jax.training.writers import make_writer, read_metrics
from moe_jax.waiting import waiting

if TYPE_CHECKING:
    from moe_jax.data.curriculum import CurriculumBatches

# A model larger than this writes no sample on a mesh: one device has to hold it.
_SAMPLE_BYTES = 2 << 30


def train(
    files: list[str],
    bindings: list[str],
    search_paths: list[str],
    output_dir: str,
    command: list[str],
    debug: bool = False,
    age: float = 0.0,
) -> dict[str, Any]:
    """Trains what the gin files describe, or goes on with it, and returns the final figures.

    Args:
        files: gin files.
        bindings: values over them.
        search_paths: where gin files are looked for.
        output_dir: the run directory.
        command: to show how to go on.
        debug: show what the libraries print.
        age: seconds since the process started, which count as the run's.

    Raises:
        UserError: for anything the user can mend.
        Interrupted: after Ctrl-C or SIGTERM, with everything saved.
    """
    with together():
        described = experiment.load(files, bindings, search_paths)
    partition = make_checked_partition(described)
    directory = run_directory.prepare(output_dir)
    console = make_console()
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    account = Account(directory, age=age, warn=say)
    checkpoints = Checkpoints(
        directory / run_directory.CHECKPOINTS, described.checkpoints, report=say
    )
    try:
        latest = checkpoints.latest()
        if latest is not None and latest >= described.train.steps:
            console.print(
                f"Done already: {directory} has {latest} steps of "
                f"{described.train.steps}. Its last evaluation:"
            )
            return _finish(console, directory, described, None, command[0])
        if latest is not None:
            for line in run_directory.config_changes(directory, config.operative()):
                console.print(f"  configuration changed: {line}", markup=False)
        sample = _run(
            described, partition, directory, checkpoints, console, account, command, debug
        )
        return _finish(console, directory, described, sample, command[0])
    finally:
        checkpoints.close()


def _run(
    described: Experiment,
    partition: Partition | None,
    directory: epath.Path,
    checkpoints: Checkpoints,
    console: Console,
    account: Account,
    command: list[str],
    debug: bool,
) -> str | None:
    """Trains, and returns a sample."""
    latest = checkpoints.latest()
    model = described.language_model(partition)
    limit = _checked_limit(described, model)
    with waiting("reading the data", silent=console.quiet), quiet(debug), together():
        from moe_jax.data import pipeline

        vocabulary = pipeline.vocabulary_of(described.data)
        described.check_vocabulary(vocabulary.vocab_size)
        batches, curriculum = _batches(described, partition)
        held_out = pipeline.eval_batches(described.data)
        bytes_of_token = pipeline.token_bytes(described.data, described.model.vocab_size)
        notes = pipeline.notes_of(described.data)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    evaluator = Evaluator(model, held_out, bytes_of_token)
    print_header(console, described, directory, mesh_line(partition) if partition else None)
    with waiting("making or restoring the parameters", silent=console.quiet):
        with quiet(debug):
            restored = checkpoints.restore(model, described.optimizer, batches)
        first, state = restored or (0, make_state(model, described.optimizer, described.train.seed))
    if latest is not None:
        console.print(f"Going on from step {first} in {directory}")
    # Only now: a configuration that does not fit the checkpoint must not take the run's place.
    if is_main():
        _describe(described, partition, directory)
    with together():
        see = _instruments(described, directory, console, checkpoints, first, account)
    see.writer.write_text("config.gin", config.operative())
    loop = Loop(
        config=described.train,
        step=_step(described, model, limit, see),
        batches=batches,
        evaluate=lambda variables: evaluator(variables).as_dict(),
        checkpoints=checkpoints,
        instruments=see,
        guard=described.guard,
        curriculum=None if curriculum is None else _orders(curriculum, model, described, directory),
    )
    try:
        state, signal = loop.run(state)
    finally:
        see.writer.close()
    if signal is not None:
        raise Interrupted(
            signal,
            f"Stopped and saved at step {int(state.step)} of {described.train.steps}. "
            f"To go on, run the same command again:\n  {shlex.join(command)}",
        )
    return _sample(described, partition, state.variables, vocabulary)


def _step(
    described: Experiment, model: LanguageModel, limit: Limit | None, see: Instruments
) -> Any:
    """Returns the training step, which is checked against the memory if that is known."""
    step = described.train_step(model)
    return step if limit is None else CheckedStep(step, limit, see.reporter.message)


def _checked_limit(described: Experiment, model: LanguageModel) -> Limit | None:
    """Returns the memory of the devices; None where it is not known or not to be checked.

    Raises:
        UserError: if what trains surely does not fit it.
    """
    devices = model.partition.local_devices if model.partition else jax.local_devices()[:1]
    limit = find_limit(devices) if described.train.check_memory else None
    if limit is not None:
        check_state(abstract_state(model, described.optimizer), limit)
    return limit


def _instruments(
    described: Experiment,
    directory: epath.Path,
    console: Console,
    checkpoints: Checkpoints,
    first: int,
    account: Account,
) -> Instruments:
    """Returns what looks at the run."""
    reporter, train, limits = make_reporter(console), described.train, described.watchdog
    return Instruments(
        writer=make_writer(directory, first, described.writers, reporter.message),
        reporter=reporter,
        account=account,
        watchdog=Watchdog(
            limits.timeout,
            directory,
            pause_seconds=limits.pause_timeout,
            process=jax.process_index(),
            last_saved=checkpoints.latest,
        ),
        profiler=Profiler(
            directory, train.profile_at or None, train.profile_steps, warn=reporter.message
        ),
        flops_per_token=described.train_flops_per_token(),
    )


def _batches(
    described: Experiment, partition: Partition | None
) -> tuple[Stream, "CurriculumBatches | None"]:
    """Returns the training data and, if it has one, its curriculum."""
    from moe_jax.data.placed import curriculum_batches, train_batches

    if described.data.curriculum is None:
        return train_batches(described.data, partition), None
    return curriculum_batches(described.data, partition)


def _orders(
    batches: "CurriculumBatches", model: LanguageModel, described: Experiment, directory: epath.Path
) -> Curriculum:
    from moe_jax.evaluation.complexity import ComplexityScorer, EpochOrders

    scorer = ComplexityScorer(model)
    return EpochOrders(scorer, batches, described.data, directory / run_directory.CURRICULUM)


def _describe(described: Experiment, partition: Partition | None, directory: epath.Path) -> None:
    """Writes the configuration and `run.json`."""
    (directory / run_directory.CONFIG_FILE).write_text(config.operative())
    run_directory.write_record(
        directory,
        mesh=mesh_sizes(partition),
        parameters=vars(described.parameters()),
        train_flops_per_token=described.train_flops_per_token(),
        tokens_per_step=described.data.batch_size * described.data.sequence_length,
    )


def _sample(
    described: Experiment, partition: Partition | None, variables: Variables, vocabulary: Any
) -> str | None:
    """Returns text that the model writes, on one device; None where that is too small for it."""
    if partition is not None:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
        if size > _SAMPLE_BYTES:
            return None
        whole = jax.jit(lambda tree: tree, out_shardings=partition.replicated)(variables)
        variables = jax.tree.map(lambda array: array.addressable_data(0), whole)
    if not is_main():
        return None
    generator = Generator(described.language_model(), described.sampling, vocabulary.eos_id)
    with waiting("writing a sample"):
        return str(vocabulary.decode(generator(variables, [])))


def _finish(
    console: Console,
    directory: epath.Path,
    described: Experiment,
    sample: str | None,
    program: str,
) -> dict[str, Any]:
    """Prints the last evaluation, the sample and the next commands; returns the figures.

    Of several processes the first does, and the others wait for it.
    """
    barrier("finished")
    if not is_main():
        return {}
    evaluations = [r for r in read_metrics(directory) if r["kind"] == "eval"]
    if not evaluations:
        raise UserError(f"{directory} has no evaluation in its metrics.jsonl")
    figures = evaluations[-1]
    print_results(console, figures, described.active_router)
    if sample is not None:
        console.print("\nA sample that it wrote (causal routing, no prompt):", style="bold")
        console.print(sample, markup=False, highlight=False)
    program, shown = shlex.quote(program), shlex.quote(str(directory))
    console.print(f"\nRun directory: {shown}", highlight=False, soft_wrap=True)
    console.print("\nNext:", style="bold")
    for line in (
        f"generate --checkpoint={shown} --prompt='The whale'",
        f"eval --checkpoint={shown}",
        "train --gin_file=runs/quickstart.gin --gin.TASK='text:my_books/*.txt' "
        "--output_dir=runs/mine",
    ):
        console.print(f"  {program} {line}", markup=False, highlight=False, soft_wrap=True)
    return {**figures, "run_directory": str(directory)}
