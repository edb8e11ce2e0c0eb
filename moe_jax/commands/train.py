"""`moe-jax train`: train to the last step, evaluate, write a sample, say what can be done next."""

import functools
import math
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
from etils import epath
from rich.console import Console

from moe_jax import config, experiment
from moe_jax.commands import environment, garbage, output
from moe_jax.commands.opening import Start, get_ready
from moe_jax.commands.quiet import quiet
from moe_jax.commands.report import print_header, print_results
from moe_jax.commands.samples import next_commands, print_samples
from moe_jax.commands.start import (
    make_checked_partition,
    make_console,
    mesh_line,
    mesh_sizes,
)
from moe_jax.data.pipeline.example_prompts import ExamplePrompt, encode_prompt, has_padding
from moe_jax.errors import Interrupted, UserError
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.perplexity import Evaluator
from moe_jax.experiment import Experiment
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import barrier, is_main, propagate_errors
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.mismatch import explain_mismatch
from moe_jax.training.fault_tolerance.watchdog import HangReport, Watchdog
from moe_jax.training.loop import Curriculum, Instruments, Loop
from moe_jax.training.memory.memory_estimate import (
    MemoryCheckedStep,
    MemoryLimit,
    check_state,
    find_limit,
)
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.metric_writers.make_writer import make_writer
from moe_jax.training.monitoring.goodput_recorder import GoodputRecorder
from moe_jax.training.monitoring.profiling import Profiler
from moe_jax.training.monitoring.progress import make_reporter
from moe_jax.training.run_directory import data_manifest, run_directory
from moe_jax.training.run_directory.atomic_file import is_remote
from moe_jax.training.run_directory.config_difference import compare_configs
from moe_jax.training.run_directory.directory_lock import DirectoryLock
from moe_jax.training.state import abstract_state
from moe_jax.waiting import waiting

if TYPE_CHECKING:
    from moe_jax.data.pipeline.curriculum import CurriculumBatches

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
    with propagate_errors():
        described = experiment.load(files, bindings, search_paths)
    partition = make_checked_partition(described)
    directory = run_directory.prepare(output_dir)
    console = make_console()
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    account = GoodputRecorder(directory, age=age, warn=say)
    with DirectoryLock(directory, command, say) as owner:
        if is_main() and not is_remote(directory):
            output.log_to(str(directory / output.LOG_FILE))
        checkpoints = CheckpointManager(
            directory / run_directory.CHECKPOINTS, described.checkpoints, say, owner.check
        )
        try:
            latest = checkpoints.latest()
            if latest is not None and latest >= described.train.steps:
                _say_done(say, directory, latest, described)
                return _finish(console, directory, described, None, command[0])
            if latest is not None:
                for line in run_directory.config_changes(directory, config.operative()):
                    console.print(f"  configuration changed: {line}", markup=False)
            sample = _run(
                described,
                partition,
                directory,
                checkpoints,
                owner,
                console,
                account,
                command,
                debug,
            )
            return _finish(console, directory, described, sample, command[0])
        finally:
            checkpoints.close()


def _say_done(
    say: Callable[[str], object], directory: epath.Path, latest: int, described: Experiment
) -> None:
    """Says that a run has all its steps, and with what other settings.

    Raises:
        UserError: if it is the run of another model than the configuration's.
    """
    path = directory / run_directory.CONFIG_FILE
    now = config.operative()
    found = compare_configs(path.read_text() if path.exists() else now, now)
    if found.model:
        more = f"; and {len(found.model) - 5} more" if len(found.model) > 5 else ""
        raise UserError(
            f"{directory} is a finished run of another configuration: "
            f"{'; '.join(found.model[:5])}{more}. To train this one, give another --output_dir; "
            "for the figures of the other, use `moe-jax eval`"
        )
    steps = described.train.steps
    say(f"Done already: {directory} has {latest} steps of {steps}. Its last evaluation:")
    for line in found.other:
        say(f"  differs, but not in the model: {line}")


def _run(
    described: Experiment,
    partition: Partition | None,
    directory: epath.Path,
    checkpoints: CheckpointManager,
    owner: DirectoryLock,
    console: Console,
    account: GoodputRecorder,
    command: list[str],
    debug: bool,
) -> str | None:
    """Trains, and returns a sample."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    latest = checkpoints.latest()
    model, optimizer = described.language_model(partition), described.optimizer
    limit, step = _checked_limit(described, model), described.train_step(model)
    print_header(console, described, directory, mesh_line(partition) if partition else None)
    start = Start(described, model, step, directory, limit, goes_on=latest is not None)
    with waiting("opening the data and compiling the step", silent=console.quiet), quiet(debug):
        ready = get_ready(start, account, say)
    data = ready.data
    data_manifest.check_same_files(described.data)
    for note in data.notes:
        say(note)
    evaluator = Evaluator(model, data.held_out, data.bytes_of_token)
    fits = explain_mismatch(directory, config.operative(), trains=True)
    with waiting("restoring the parameters", silent=console.quiet), quiet(debug), fits:
        restored = checkpoints.restore(model, optimizer, data.batches)
    first, state = restored or (0, ready.state or start.new_state())
    if latest is not None:
        console.print(f"Going on from step {first} in {directory}")
    # Only now: a configuration that does not fit the checkpoint must not take the run's place.
    _describe(described, partition, directory, owner, data.asked)
    with propagate_errors():
        see = _instruments(described, directory, console, checkpoints, first, account)
    see.writer.write_text("config.gin", config.operative())
    loop = Loop(
        config=described.train,
        step=step if ready.is_compiled or limit is None else MemoryCheckedStep(step, limit, say),
        batches=data.batches,
        evaluate=lambda variables: evaluator(variables).as_dict(),
        checkpoints=checkpoints,
        instruments=see,
        guard=described.guard,
        is_compiled=ready.is_compiled,
        curriculum=_orders(data.curriculum, model, described, directory),
        lock=owner,
    )
    garbage.resume(collect=restored is not None)
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
    return _sample(described, partition, state.variables, data.vocabulary, data.asked)


def _checked_limit(described: Experiment, model: LanguageModel) -> MemoryLimit | None:
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
    checkpoints: CheckpointManager,
    first: int,
    account: GoodputRecorder,
) -> Instruments:
    """Returns what looks at the run."""
    reporter, train, limits = make_reporter(console), described.train, described.watchdog
    return Instruments(
        writer=make_writer(directory, first, described.writers, reporter.message),
        reporter=reporter,
        goodput=account,
        watchdog=Watchdog(
            limits.timeout,
            HangReport(directory, jax.process_index(), checkpoints.latest),
            pause_seconds=limits.pause_timeout,
        ),
        profiler=Profiler(
            directory, train.profile_at or None, train.profile_steps, warn=reporter.message
        ),
        flops_per_token=described.train_flops_per_token(),
    )


def _orders(
    batches: "CurriculumBatches | None",
    model: LanguageModel,
    described: Experiment,
    directory: epath.Path,
) -> Curriculum | None:
    if batches is None:
        return None
    from moe_jax.evaluation.complexity import ComplexityScorer, EpochOrderer

    scorer = ComplexityScorer(model)
    return EpochOrderer(scorer, batches, described.data, directory / run_directory.CURRICULUM)


def _describe(
    described: Experiment,
    partition: Partition | None,
    directory: epath.Path,
    owner: DirectoryLock,
    asked: ExamplePrompt,
) -> None:
    """Writes the configuration and `run.json`, if the directory is still this run's."""
    owner.check()
    if not is_main():
        return
    run_directory.write_config(directory, config.operative())
    run_directory.write_record(
        directory,
        data=data_manifest.write_data_manifest(directory, described.data),
        mesh=mesh_sizes(partition),
        environment=environment.followed(),
        parameters=vars(described.parameters()),
        train_flops_per_token=described.train_flops_per_token(),
        tokens_per_step=described.data.batch_size * described.data.sequence_length,
        has_padding=has_padding(described.data),
        **vars(asked),
    )


def _sample(
    described: Experiment,
    partition: Partition | None,
    variables: Variables,
    vocabulary: Any,
    asked: ExamplePrompt,
) -> str | None:
    """Returns text that the model writes, on one device; None where that is too small for it.

    Where the data are questions and answers, it is the answer to a question.
    """
    if partition is not None:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
        if size > _SAMPLE_BYTES:
            return None
        whole = jax.jit(lambda tree: tree, out_shardings=partition.replicated)(variables)
        variables = jax.tree.map(lambda array: array.addressable_data(0), whole)
    if not is_main():
        return None
    generator = Generator(described.language_model(), described.sampling, vocabulary.eos_id)
    question = asked.prompt if asked.is_question else ""
    tokens = encode_prompt(described.data, vocabulary, question)
    with waiting("writing a sample"):
        return str(vocabulary.decode(generator(variables, tokens)))


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
        raise UserError(
            f"{directory} has no evaluation in its metrics.jsonl; "
            f"`moe-jax eval --checkpoint={directory}` makes one"
        )
    # The record has null for what is not finite.
    figures = {n: math.nan if v is None else v for n, v in evaluations[-1].items()}
    print_results(console, figures, described.active_router)
    record = run_directory.read_record(directory)
    prompt, is_answer = record.get("prompt", ""), record.get("is_question", False)
    if sample is not None:
        heading = "Asked of held-out data" if is_answer else "A sample that it wrote"
        how = "causal routing" if is_answer else "causal routing, no prompt"
        console.print(f"\n{heading} ({how}):", style="bold")
        print_samples(console, prompt if is_answer else "", [sample], is_answer)
    shown = shlex.quote(str(directory))
    console.print(f"\nRun directory: {shown}", highlight=False, soft_wrap=True)
    console.print("\nNext:", style="bold")
    for line in next_commands(program, str(directory), described.data, prompt):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return {**figures, "run_directory": str(directory)}
