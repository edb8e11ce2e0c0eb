"""`moe-jax train`: train to the last step, evaluate, write a sample, say what can be done next."""

import shlex
from typing import Any

from etils import epath
from rich.console import Console

from moe_jax import config, experiment
from moe_jax.commands.quiet import quiet
from moe_jax.commands.report import print_header, print_results
from moe_jax.errors import Interrupted, UserError
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.perplexity import Evaluator
from moe_jax.experiment import Experiment
from moe_jax.training import run_directory
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.loop import Loop
from moe_jax.training.progress import make_reporter
from moe_jax.training.state import make_state
from moe_jax.training.step import make_train_step
from moe_jax.training.writers import MetricWriter, read_metrics


def train(
    files: list[str],
    bindings: list[str],
    search_paths: list[str],
    output_dir: str,
    command: list[str],
    debug: bool = False,
) -> dict[str, Any]:
    """Trains what the gin files describe, or goes on with it, and returns the final figures.

    Raises:
        UserError: for anything the user can mend.
        Interrupted: after Ctrl-C or SIGTERM, with everything saved.
    """
    described = experiment.load(files, bindings, search_paths)
    directory = run_directory.prepare(output_dir)
    console = Console()
    checkpoints = Checkpoints(directory / run_directory.CHECKPOINTS, described.checkpoints)
    try:
        latest = checkpoints.latest()
        if latest is not None and latest >= described.train.steps:
            console.print(
                f"Done already: {directory} has {latest} steps of "
                f"{described.train.steps}. Its last evaluation:"
            )
            return _finish(console, directory, described, None, command[0])
        if latest is not None:
            console.print(f"Going on from step {latest} in {directory}")
            for line in run_directory.config_changes(directory, config.operative()):
                console.print(f"  configuration changed: {line}", markup=False)
        sample = _run(described, directory, checkpoints, console, command, debug)
        return _finish(console, directory, described, sample, command[0])
    finally:
        checkpoints.close()


def _run(
    described: Experiment,
    directory: epath.Path,
    checkpoints: Checkpoints,
    console: Console,
    command: list[str],
    debug: bool,
) -> str:
    """Trains, and returns a sample."""
    latest = checkpoints.latest()
    with console.status("reading the data ..."), quiet(debug):
        from moe_jax.data import pipeline

        vocabulary = pipeline.vocabulary_of(described.data)
        described.check_vocabulary(vocabulary.vocab_size)
        batches = pipeline.TrainBatches(described.data)
        held_out = pipeline.eval_batches(described.data)
        bytes_of_token = pipeline.token_bytes(described.data, described.model.vocab_size)
    model, optimizer = described.language_model(), described.optimizer
    evaluator = Evaluator(model, held_out, bytes_of_token)
    print_header(console, described, directory)
    if latest is None:
        state = make_state(model, optimizer, described.train.seed)
    else:
        with quiet(debug):
            state = checkpoints.restore(latest, model, optimizer, batches)
    # Only now: a configuration that does not fit the checkpoint must not take the run's place.
    (directory / run_directory.CONFIG_FILE).write_text(config.operative())
    run_directory.write_record(
        directory,
        parameters=vars(described.parameters()),
        train_flops_per_token=described.train_flops_per_token(),
        tokens_per_step=described.data.batch_size * described.data.sequence_length,
    )
    writer = MetricWriter(directory, latest or 0)
    writer.write_text("config.gin", config.operative())
    loop = Loop(
        config=described.train,
        step=make_train_step(
            model, optimizer, described.loss, described.train.accumulation, described.train.seed
        ),
        batches=batches,
        evaluate=lambda variables: evaluator(variables).as_dict(),
        checkpoints=checkpoints,
        writer=writer,
        reporter=make_reporter(console),
        flops_per_token=described.train_flops_per_token(),
    )
    try:
        state, signal = loop.run(state)
    finally:
        writer.close()
    if signal is not None:
        raise Interrupted(
            signal,
            f"Stopped and saved at step {int(state.step)} of {described.train.steps}. "
            f"To go on, run the same command again:\n  {shlex.join(command)}",
        )
    generator = Generator(model, described.sampling, vocabulary.eos_id)
    return str(vocabulary.decode(generator(state.variables, [])))


def _finish(
    console: Console,
    directory: epath.Path,
    described: Experiment,
    sample: str | None,
    program: str,
) -> dict[str, Any]:
    """Prints the last evaluation, the sample and the next commands; returns the figures."""
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
