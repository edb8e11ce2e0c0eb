"""The command line: one verb per job. Nothing heavy is imported before a verb needs it."""

import argparse
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from moe_jax import __version__
from moe_jax.commands.huge_pages import restart_with_huge_pages
from moe_jax.errors import Interrupted, UserError, nearest

_GIN_PREFIX = "--gin."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-jax", description="Pre-train mixture-of-experts language models with JAX."
    )
    parser.add_argument("--version", action="version", version=f"moe-jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="last line: the result as JSON")
    common.add_argument("--debug", action="store_true", help="show tracebacks and library logs")
    gin = argparse.ArgumentParser(add_help=False)
    gin.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="repeatable, later wins"
    )
    gin.add_argument("--gin_search_paths", default="", help="directories, separated by commas")
    gin.add_argument(
        "--gin.NAME",
        dest="_gin_help",
        metavar="VALUE",
        help="sets one value, such as --gin.Train.steps=100",
    )
    cpu = argparse.ArgumentParser(add_help=False)
    cpu.add_argument("--cpu_devices", type=int, metavar="N", help="virtual CPU devices (tests)")
    several = argparse.ArgumentParser(add_help=False, parents=[cpu])
    several.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    several.add_argument("--num_processes", type=int, metavar="N", help="processes of the run")
    several.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
    several.add_argument(
        "--start_timeout", type=float, default=300, metavar="SECONDS", help="to wait for all"
    )
    checkpoint = argparse.ArgumentParser(add_help=False)
    checkpoint.add_argument("--checkpoint", required=True, metavar="DIR", help="a run directory")
    checkpoint.add_argument("--step", type=int, help="the checkpoint's step (default: the latest)")

    verb = verbs.add_parser(
        "train", parents=[common, gin, several], help="train, or go on training"
    )
    verb.add_argument("--output_dir", required=True, metavar="DIR", help="the run directory")
    verbs.add_parser(
        "eval", parents=[common, gin, checkpoint, several], help="perplexity of a checkpoint"
    )
    verb = verbs.add_parser("generate", parents=[common, gin, checkpoint], help="write text")
    verb.add_argument("--prompt", default="", metavar="TEXT")
    verb.add_argument("--samples", type=int, default=1, metavar="N")
    verb = verbs.add_parser(
        "config", parents=[common, gin, cpu], help="check, show or list gin files"
    )
    verb.add_argument("action", choices=("check", "show", "list"))
    verb.add_argument(
        "--sharding", action="store_true", help="show: how each parameter is cut along the mesh"
    )
    verb = verbs.add_parser("status", parents=[common], help="where a run stands")
    verb.add_argument("directory", metavar="DIR", help="a run directory")
    _add_plot(verbs.add_parser("plot", parents=[common], help="curves of runs, as a PNG"))
    _add_data(
        verbs.add_parser("data", parents=[common, gin, several], help="what there is to train on")
    )
    _add_bench(verbs.add_parser("bench", parents=[common, gin], help="measure on this machine"))
    return parser


def _add_plot(verb: argparse.ArgumentParser) -> None:
    """Adds the flags of `plot`."""
    verb.add_argument("directories", nargs="+", metavar="DIR", help="run directories")
    verb.add_argument("--output", default="curves.png", metavar="FILE", help="the PNG to write")
    verb.add_argument("--what", default="loss,eval,speed,balance", metavar="A,B", help="panels")
    verb.add_argument("--x", default="steps", help="steps, tokens or hours")


def _add_data(verb: argparse.ArgumentParser) -> None:
    """Adds the flags of `data`."""
    verb.add_argument(
        "action",
        choices=("list", "show", "stats", "prepare", "cache", "score"),
        help="list: every task; show: some rows of one; stats: examples, tokens and rows; "
        "prepare: original files into a TFDS directory; cache: tokenise once, ahead of a run; "
        "score: order the training rows by how many experts a checkpoint gives them",
    )
    verb.add_argument("name", nargs="?", metavar="NAME", help="a task, or what to prepare")
    verb.add_argument("--split", default="validation", help="show, stats: which split")
    verb.add_argument("--examples", type=int, metavar="N", help="show: 3; stats: all")
    verb.add_argument("--source", metavar="DIR", help="prepare: where the original files are")
    verb.add_argument("--data_dir", metavar="DIR", help="prepare: where the TFDS directory is made")
    verb.add_argument("--force", action="store_true", help="prepare, cache: write over an old one")
    verb.add_argument(
        "--output_dir", metavar="DIR", help="cache: for Data.cache_dir; score: the order"
    )
    verb.add_argument("--checkpoint", metavar="DIR", help="score: a run directory")
    verb.add_argument("--step", type=int, help="score: the checkpoint's step (default: the latest)")


def _add_bench(verb: argparse.ArgumentParser) -> None:
    """Adds the flags of `bench`."""
    verb.add_argument(
        "what",
        choices=("step", "data", "routing", "adaptive"),
        help="step: where a training step's time goes; data: tokens a second of the data pipeline, "
        "by stage; routing: every router and transport beside "
        "a dense layer; adaptive: time by share of one-expert tokens",
    )
    verb.add_argument("--steps", type=int, default=5, help="step: steps to measure")
    verb.add_argument("--seconds", type=float, default=10, help="data: for each stage")
    verb.add_argument(
        "--size", default="M", metavar="XS|S|M|L", help="routing, adaptive: the layer"
    )
    verb.add_argument("--routers", default="", metavar="A,B", help="routing: which (default: all)")
    verb.add_argument("--dispatches", default="grouped,gather", metavar="A,B", help="routing")
    verb.add_argument("--dtype", default="float32", help="routing, adaptive: of the experts")
    verb.add_argument("--rounds", type=int, default=5, help="routing, adaptive: runs of each case")


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line; returns the flags and the --gin. bindings."""
    bindings = [a.removeprefix(_GIN_PREFIX) for a in argv if a.startswith(_GIN_PREFIX)]
    rest = [a for a in argv if not a.startswith(_GIN_PREFIX)]
    parser = _parser()
    args, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UserError(f"unknown argument {unknown[0]!r}." + nearest(unknown[0], _flags(parser)))
    return args, bindings


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    flags = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                flags += verb._option_string_actions
    return flags


def _start(args: argparse.Namespace) -> None:
    """Gets devices and processes ready, for the verbs that can use several."""
    from moe_jax.commands import cpu_devices

    processes = getattr(args, "num_processes", None)
    cpu_devices.prepare(getattr(args, "cpu_devices", None), processes)
    if not hasattr(args, "coordinator"):
        return
    if processes and processes > 1 and not args.debug and os.environ.get("JAX_PLATFORMS") == "cpu":
        from moe_jax.commands.start import hide_library_output

        hide_library_output()
    from moe_jax.sharding.processes import initialize

    initialize(args.coordinator, args.num_processes, args.process_id, args.start_timeout)


def _is_main() -> bool:
    """Returns whether this process prints: of several, only the first does."""
    return not _is_connected() or sys.modules["jax"].process_index() == 0


def _is_connected() -> bool:
    """Returns whether this is one of several processes, without starting JAX."""
    return "jax" in sys.modules and bool(sys.modules["jax"].distributed.is_initialized())


def _leave(code: int) -> int:
    """Ends a process of several at once: at its normal end it would wait for the others."""
    if _is_connected():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _train(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands.train import train
    from moe_jax.training.account import process_age

    command = [_program(), *sys.argv[1:]]
    age = process_age() if sys.argv[1:2] == ["train"] else 0.0
    return train(
        _files(args), bindings, _paths(args), args.output_dir, command, debug=args.debug, age=age
    )


def _eval(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands.evaluate import evaluate

    return evaluate(
        args.checkpoint, args.step, args.gin_file, bindings, _paths(args), debug=args.debug
    )


def _generate(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands.generate import generate

    if args.samples < 1:
        raise UserError(f"--samples must be above 0, not {args.samples}")
    return generate(
        args.checkpoint,
        args.step,
        args.prompt,
        args.samples,
        args.gin_file,
        bindings,
        _paths(args),
        debug=args.debug,
    )


def _config(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands import configure

    if args.action == "list":
        return configure.list_files()
    if args.action == "check":
        return configure.check(args.gin_file, bindings, _paths(args))
    if args.sharding:
        return configure.show_sharding(_files(args), bindings, _paths(args))
    return configure.show(_files(args), bindings, _paths(args))


def _status(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands.status import status

    return status(args.directory)


def _plot(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands.plot import plot

    return plot(args.directories, args.output, args.what.split(","), args.x)


def _need(action: str, flags: dict[str, str | None]) -> None:
    for flag, value in flags.items():
        if not value:
            raise UserError(f"data {action} needs {flag}")


def _data(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands import data

    if args.examples is not None and args.examples < 1:
        raise UserError(f"--examples must be above 0, not {args.examples}")
    if args.action == "list":
        return data.list_tasks(debug=args.debug)
    if args.action == "prepare":
        from rich.console import Console

        from moe_jax.commands.prepare import prepare

        _need("prepare", {"NAME": args.name, "--source": args.source, "--data_dir": args.data_dir})
        return prepare(
            args.name,
            args.source,
            args.data_dir,
            Console(),
            force=args.force,
            debug=args.debug,
        )
    if args.action == "score":
        from moe_jax.commands.score import score

        _need("score", {"--checkpoint": args.checkpoint, "--output_dir": args.output_dir})
        return score(
            args.checkpoint,
            args.step,
            args.output_dir,
            args.gin_file,
            bindings,
            _paths(args),
            debug=args.debug,
        )
    described = data.load_data(args.name, args.gin_file, bindings, _paths(args))
    if args.action == "show":
        return data.show(described, args.split, args.examples or 3, debug=args.debug)
    if args.action == "stats":
        return data.stats(described, args.split, args.examples or 0, debug=args.debug)
    _need("cache", {"--output_dir": args.output_dir})
    return data.cache(described, args.output_dir, force=args.force, debug=args.debug)


def _bench(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    from moe_jax.commands.bench import bench_adaptive, bench_data, bench_routing, bench_step

    if args.rounds < 1 or args.steps < 1:
        raise UserError("--rounds and --steps must be above 0")
    if args.what == "adaptive":
        return bench_adaptive(args.size, args.dtype, args.rounds)
    if args.what == "routing":
        names = [name for name in args.routers.split(",") if name]
        return bench_routing(args.size, names, args.dispatches.split(","), args.dtype, args.rounds)
    files = args.gin_file or ["runs/quickstart.gin"]
    if args.what == "data":
        return bench_data(files, bindings, _paths(args), args.seconds, debug=args.debug)
    return bench_step(files, bindings, _paths(args), args.steps, debug=args.debug)


_VERBS: dict[str, Callable[[argparse.Namespace, list[str]], dict[str, Any]]] = {
    "train": _train,
    "eval": _eval,
    "generate": _generate,
    "status": _status,
    "plot": _plot,
    "config": _config,
    "data": _data,
    "bench": _bench,
}


def _program() -> str:
    """Returns this program as the user can type it: by path where it is not on the search path."""
    if os.path.basename(sys.argv[0]) == "moe-jax" and not shutil.which("moe-jax"):
        return os.path.relpath(sys.argv[0])
    return "moe-jax"


def _files(args: argparse.Namespace) -> list[str]:
    if not args.gin_file:
        raise UserError(
            "which configuration? Give --gin_file, for example --gin_file=runs/quickstart.gin "
            "(`moe-jax config list` shows them)"
        )
    return list(args.gin_file)


def _paths(args: argparse.Namespace) -> list[str]:
    return [path for path in args.gin_search_paths.split(",") if path]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, 1 for an error, 128 + signal."""
    if argv is None:
        restart_with_huge_pages()
        argv = sys.argv[1:]
    debug = "--debug" in argv
    # Warnings of libraries (Orbax, JAX, seqio) are for developers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        args, bindings = _parse(argv)
        _start(args)
        result = _VERBS[args.verb](args, bindings)
    except UserError as error:
        if debug:
            raise
        print(f"moe-jax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("moe-jax: stopped", file=sys.stderr)
        return _leave(130)
    except Exception as error:
        if debug:
            raise
        return _stopped(error)
    if args.json and _is_main():
        print(json.dumps(result))
    return 0


def _stopped(error: Exception) -> int:
    """Reports an exception that is not the user's mistake, or an interrupt of training."""
    if isinstance(error, Interrupted):
        number, message = error.args
        if _is_main():
            print(message)
        return 128 + int(number)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        print(
            f"moe-jax: the disk has no space left{where}; what was complete before is kept: make "
            "room and run the same command again",
            file=sys.stderr,
        )
        return _leave(1)
    text = " ".join(str(error).split())[:500]
    print(
        f"moe-jax: {type(error).__name__}: {text} (this may be a bug; --debug shows where)",
        file=sys.stderr,
    )
    return _leave(1)


if __name__ == "__main__":
    sys.exit(main())
