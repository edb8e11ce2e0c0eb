"""The command line: one verb per job. Nothing heavy is imported before a verb needs it."""

import argparse
import contextlib
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from moe_jax import strict_json
from moe_jax.commands import environment, garbage, output
from moe_jax.commands.arguments import make_parser
from moe_jax.commands.huge_pages import restart_with_huge_pages
from moe_jax.commands.terminal import protect
from moe_jax.errors import Interrupted, UserError, nearest
from moe_jax.waiting import waiting

_GIN_PREFIX = "--gin."


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line; returns the flags and the --gin. bindings."""
    bindings = [a.removeprefix(_GIN_PREFIX) for a in argv if a.startswith(_GIN_PREFIX)]
    rest = [a for a in argv if not a.startswith(_GIN_PREFIX)]
    parser = make_parser()
    args, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UserError(f"unknown argument {unknown[0]!r}.{_meant(unknown[0], parser, argv)}")
    return args, bindings


def _meant(unknown: str, parser: argparse.ArgumentParser, argv: Sequence[str]) -> str:
    """Returns what an unknown argument may have been meant as, or nothing."""
    before = argv[argv.index(unknown) - 1] if unknown in argv[1:] else ""
    if before.startswith(_GIN_PREFIX) and "=" not in before:
        return f" Did you mean {before}={unknown}?"
    return nearest(unknown, _flags(parser))


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
    from moe_jax.sharding.distributed import initialize

    initialize(args.coordinator, args.num_processes, args.process_id, args.start_timeout)


def _keep_compiled(args: argparse.Namespace) -> None:
    """Lets the verbs that compile a model keep what they have compiled."""
    has_flags = hasattr(args, "no_cache")
    if not has_flags and (args.verb, getattr(args, "action", None)) != ("data", "score"):
        return
    from moe_jax.commands import compilation_cache

    if has_flags and args.no_cache:
        compilation_cache.disable()
        return
    compilation_cache.enable(
        args.cache_dir if has_flags else None,
        output_dir=args.output_dir if args.verb == "train" else None,
        processes=sys.modules["jax"].process_count() if _is_connected() else 1,
        is_main=_is_main(),
        warn=lambda line: print(f"moe-jax: {line}", file=sys.stderr),
    )


def _permissions(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Lets gin files import what `--allow_imports` names while a verb is at work."""
    modules = getattr(args, "allow_imports", [])
    if not modules:
        return contextlib.nullcontext()
    from moe_jax.gin_imports import allowing

    return allowing(modules)


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
    from moe_jax.training.monitoring.goodput_recorder import process_age

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
        from moe_jax.commands.console import make_console
        from moe_jax.commands.prepare import prepare

        _need("prepare", {"NAME": args.name, "--source": args.source, "--data_dir": args.data_dir})
        return prepare(
            args.name,
            args.source,
            args.data_dir,
            make_console(),
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
            [_program(), *sys.argv[1:]],
            debug=args.debug,
        )
    described = data.load_data(args.name, args.gin_file, bindings, _paths(args))
    if args.action == "show":
        return data.show(described, args.split, args.examples or 3, debug=args.debug)
    if args.action == "stats":
        return data.stats(described, args.split, args.examples or 0, debug=args.debug)
    _need("cache", {"--output_dir": args.output_dir})
    return data.cache(described, args.output_dir, force=args.force, debug=args.debug)


def _compile(args: argparse.Namespace, bindings: list[str]) -> dict[str, Any]:
    # Before JAX starts: it would look for a TPU, and on a machine with one take it.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from moe_jax.commands.compile import CompileOptions, compile_for

    options = CompileOptions(
        args.topology,
        args.full,
        args.sweep,
        args.tokens,
        args.output_dir,
        [_program(), *sys.argv[1:]],
        variants=not args.no_variants,
    )
    with _exit_when_terminated():
        return compile_for(options, _files(args), bindings, _paths(args))


@contextlib.contextmanager
def _exit_when_terminated() -> Iterator[None]:
    """Lets SIGTERM end the process as an error does, so that child processes and files go along."""
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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
    "compile": _compile,
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
    if argv is not None:
        return _main(argv)
    argv = sys.argv[1:]
    protect()
    output.watch_readers(goes_on=output.leaves_files(argv))
    restart_with_huge_pages()
    if argv[:1] in (["train"], ["eval"], ["generate"]):
        garbage.put_off()  # They resume it.
    try:
        return _main(argv)
    finally:
        output.finish()


def _main(argv: Sequence[str]) -> int:
    debug = "--debug" in argv
    # Warnings of libraries (Orbax, JAX, seqio) are for developers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        args, bindings = _parse(argv)
        environment.prepare(debug)
        # Until the verb itself says what it does: imports can take a while.
        with waiting(f"moe-jax {args.verb}", gives_way=True), _permissions(args):
            _start(args)
            _keep_compiled(args)
            result = _VERBS[args.verb](args, bindings)
    except UserError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            print(f"moe-jax: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("moe-jax: stopped", file=sys.stderr)
        return _leave(130)
    except Exception as error:
        if debug:
            raise
        return _stopped(error, "--json" in argv)
    if args.json and _is_main():
        print(strict_json.dumps(result))
    if found := strict_json.not_finite(result):
        if _is_main():
            names = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            print(f"moe-jax: not finite: {names}", file=sys.stderr)
        return 1
    return 0


def _stopped(error: Exception, as_json: bool) -> int:
    """Reports an exception that is not the user's mistake, or an interrupt of training."""
    if isinstance(error, Interrupted):
        number, message, *results = error.args
        if _is_main():
            print(message)
            for result in results if as_json else ():
                print(strict_json.dumps(result))
        return 128 + int(number)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        print(
            f"moe-jax: the disk has no space left{where}; what was complete before is kept: make "
            "room and run the same command again",
            file=sys.stderr,
        )
        return _leave(1)
    if (line := environment.mistake(error)) is not None:
        print(f"moe-jax: {line}", file=sys.stderr)
        return _leave(1)
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        print(
            f"moe-jax: the memory is used up: {text or 'MemoryError'}. Use smaller micro-batches "
            "(Train.accumulation), Model.remat = 'full', a smaller model, or more devices",
            file=sys.stderr,
        )
        return _leave(1)
    print(
        f"moe-jax: {type(error).__name__}: {text} (this may be a bug; --debug shows where)",
        file=sys.stderr,
    )
    return _leave(1)


if __name__ == "__main__":
    sys.exit(main())
