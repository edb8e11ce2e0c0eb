"""The preparation of devices, processes, cache and permissions before a verb runs."""

import argparse
import contextlib
import os
import sys

from moe_jax.commands import this_process
from moe_jax.commands.output import Output


def prepare_devices(args: argparse.Namespace) -> None:
    """Prepares virtual devices and connects the processes, for verbs with these flags.

    Raises:
        UserError: for flags that do not fit, or if a process is missing.
    """
    from moe_jax.commands import cpu_devices

    processes = getattr(args, "num_processes", None)
    cpu_devices.prepare(getattr(args, "cpu_devices", None), processes)
    if not hasattr(args, "coordinator"):
        return
    if processes and processes > 1 and not args.debug and os.environ.get("JAX_PLATFORMS") == "cpu":
        hide_native_output()
    from moe_jax.sharding.distributed import initialize

    initialize(args.coordinator, args.num_processes, args.process_id, args.start_timeout)


def hide_native_output() -> None:
    """Discards the standard output of C++ libraries (Gloo), not that of Python."""
    sys.stdout.flush()
    own = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    stream = os.fdopen(own, "w", buffering=1)
    sys.stdout = sys.stdout.moved(stream) if isinstance(sys.stdout, Output) else stream


def enable_compilation_cache(args: argparse.Namespace) -> None:
    """Enables the compilation cache, as the flags of `add_cache_flags` say if the verb has them."""
    from moe_jax.commands import compilation_cache

    if getattr(args, "no_cache", False):
        compilation_cache.disable()
        return
    has_flags = hasattr(args, "no_cache")
    compilation_cache.enable(
        args.cache_dir if has_flags else None,
        output_dir=getattr(args, "output_dir", None) if has_flags else None,
        processes=this_process.process_count(),
        is_main=this_process.is_main(),
        warn=lambda line: print(f"moe-jax: {line}", file=sys.stderr),
    )


def allowed_imports(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Permits gin files to import what `--allow_imports` names, inside the context."""
    modules = getattr(args, "allow_imports", [])
    if not modules:
        return contextlib.nullcontext()
    from moe_jax.gin_imports import allowing

    return allowing(modules)
