"""`moe-jax generate`: text from a checkpoint."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from moe_jax.commands import arguments
from moe_jax.errors import UserError
from moe_jax.waiting import waiting

if TYPE_CHECKING:
    from moe_jax.runs.generation import GeneratedText, TextGenerator
    from moe_jax.runs.loading import Run, TrainedModel

NAME, HELP = "generate", "write text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `generate`."""
    arguments.add_gin_flags(parser)
    arguments.add_checkpoint_flags(parser)
    arguments.add_process_flags(parser)
    arguments.add_cache_flags(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="one prompt (default: none)")
    parser.add_argument(
        "--prompts", metavar="FILE", help='one a line; .jsonl: lines like {"prompt": TEXT}'
    )
    parser.add_argument("--output", metavar="FILE", help="write the texts as JSON lines")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="texts a prompt")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="texts at a time")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Generates texts that follow prompts, routed causally; prints and returns them.

    Raises:
        UserError: for everything that the user can correct.
    """
    _check(args)

    from moe_jax.commands.console import make_main_console
    from moe_jax.library_output import suppress_library_output
    from moe_jax.runs import garbage_collection
    from moe_jax.runs.generation import TextGenerator
    from moe_jax.runs.loading import load_run
    from moe_jax.runs.prompt_files import check_output, read_prompts

    prompts = [args.prompt or ""] if args.prompts is None else read_prompts(args.prompts)
    if args.output is not None:
        check_output(args.output)
    loaded = load_run(args.checkpoint, arguments.config_source(args))
    console = make_main_console()
    silent = console.quiet
    with waiting("loading the checkpoint", silent=silent), suppress_library_output(args.debug):
        trained = _load(loaded, args.step)
        generate = TextGenerator(trained)
    garbage_collection.resume(collect=True)
    result: dict[str, Any] = {"step": trained.step}
    if _streams(args, generate):
        text = _stream(console, generate, prompts[0])
        _warn(console, loaded)
        return result | {"prompt": prompts[0], "texts": [text]}
    with waiting("generating", silent=silent) as wait:
        texts = generate.texts(
            prompts,
            args.samples,
            args.batch_size,
            lambda done, total: wait.say(f"{done} of {total} texts"),
        )
    _warn(console, loaded)
    if args.output is not None:
        _write(console, args.output, texts)
        result["output"] = args.output
    else:
        _print(console, prompts, texts, generate.answers_questions)
    if args.prompts is None:
        return result | {"prompt": prompts[0], "texts": [text.text for text in texts]}
    return result | {"generations": [dataclasses.asdict(text) for text in texts]}


def _check(args: argparse.Namespace) -> None:
    for flag in ("samples", "batch_size"):
        if (value := getattr(args, flag)) < 1:
            raise UserError(f"--{flag} must be above 0, not {value}")
    if args.prompt is not None and args.prompts is not None:
        raise UserError("--prompt is one prompt, --prompts a file of them: give one of the two")


def _load(loaded: "Run", step: int | None) -> "TrainedModel":
    """Loads the model: over the run's mesh, or on the device if there is only one."""
    from moe_jax.runs.device_mesh import make_checked_partition
    from moe_jax.runs.loading import load_model
    from moe_jax.sharding import mesh

    if len(mesh.available_devices()) == 1:
        return load_model(loaded, step)
    return load_model(loaded, step, make_checked_partition(loaded.experiment, loaded.config))


def _streams(args: argparse.Namespace, generate: "TextGenerator") -> bool:
    """Returns whether the text is printed as it is made."""
    is_one = args.prompts is None and args.samples == 1
    return is_one and generate.can_stream and args.output is None and not args.json


def _stream(console: Any, generate: "TextGenerator", prompt: str) -> str:
    from moe_jax.commands.samples import print_stream

    pieces = generate.stream(prompt)
    with waiting("reading the prompt", silent=console.quiet):
        first = next(pieces, "")
    return print_stream(console, prompt, (first, pieces), generate.answers_questions)


def _warn(console: Any, loaded: "Run") -> None:
    from moe_jax.commands.console import line_printer
    from moe_jax.runs.trained_router import router_mismatch

    if (mismatch := router_mismatch(loaded)) is not None:
        line_printer(console)(f"Mind that {mismatch}")


def _write(console: Any, path: str, texts: "list[GeneratedText]") -> None:
    """Writes the texts, in the first process only."""
    from moe_jax.commands.console import line_printer
    from moe_jax.runs.prompt_files import write_texts
    from moe_jax.sharding.processes import is_main, propagate_errors

    with propagate_errors():
        if is_main():
            write_texts(path, texts)
    line_printer(console)(f"{len(texts)} texts: {path}")


def _print(
    console: Any, prompts: list[str], texts: "list[GeneratedText]", are_answers: bool
) -> None:
    from moe_jax.commands.samples import print_samples

    for index, prompt in enumerate(prompts):
        if index:
            console.print()
        of_prompt = [text.text for text in texts if text.prompt_index == index]
        print_samples(console, prompt, of_prompt, are_answers)
