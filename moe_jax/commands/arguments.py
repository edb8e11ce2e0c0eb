"""The verbs of the command line and their flags."""

import argparse

from moe_jax import __version__


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line, without the `--gin.` bindings."""
    parser = argparse.ArgumentParser(
        prog="moe-jax", description="Pre-train mixture-of-experts language models with JAX."
    )
    parser.add_argument("--version", action="version", version=f"moe-jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    common, gin, cpu, several, checkpoint = _shared_flags()
    cache = _cache_flags()
    verb = verbs.add_parser(
        "train", parents=[common, gin, several, cache], help="train, or go on training"
    )
    verb.add_argument("--output_dir", required=True, metavar="DIR", help="the run directory")
    verbs.add_parser(
        "eval", parents=[common, gin, checkpoint, several, cache], help="perplexity of a checkpoint"
    )
    verb = verbs.add_parser("generate", parents=[common, gin, checkpoint, cache], help="write text")
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
    _add_compile(
        verbs.add_parser(
            "compile",
            parents=[common, gin],
            help="what the TPU compiler says of a step: fits? how fast? (no TPU needed)",
        )
    )
    _add_bench(verbs.add_parser("bench", parents=[common, gin], help="measure on this machine"))
    return parser


def _cache_flags() -> argparse.ArgumentParser:
    """Returns the flags of verbs that compile a model."""
    cache = argparse.ArgumentParser(add_help=False)
    cache.add_argument(
        "--cache_dir",
        metavar="DIR",
        help="where compiled programs are kept, local or gs:// (default: the user's cache "
        "directory; of several processes, .compiled beside the output directory)",
    )
    cache.add_argument("--no_cache", action="store_true", help="compile everything anew")
    return cache


def _shared_flags() -> tuple[argparse.ArgumentParser, ...]:
    """Returns the flags that several verbs have: common, gin, cpu, several, checkpoint."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="last line: the result as JSON")
    common.add_argument("--debug", action="store_true", help="show tracebacks and library logs")
    gin = argparse.ArgumentParser(add_help=False)
    gin.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="repeatable, later wins"
    )
    gin.add_argument("--gin_search_paths", default="", help="directories, separated by commas")
    gin.add_argument(
        "--allow_imports",
        action="append",
        default=[],
        metavar="MODULE,...",
        help="modules that gin files may import, and so run; see docs/guides/security.md",
    )
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
    return common, gin, cpu, several, checkpoint


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


def _add_compile(verb: argparse.ArgumentParser) -> None:
    """Adds the flags of `compile`."""
    verb.add_argument(
        "--topology", required=True, metavar="CHIP:SHAPE", help="v4:8x8x8, v5e:16x16, v6e-256, ..."
    )
    verb.add_argument(
        "--full", action="store_true", help="generate code too, whose cycles are then known"
    )
    verb.add_argument(
        "--sweep",
        action="store_true",
        help="try meshes, rematerialisation and dispatches, and rank those that fit",
    )
    verb.add_argument(
        "--no_variants",
        action="store_true",
        help="answer only; do not look for what fits where this does not",
    )
    verb.add_argument(
        "--tokens", type=float, default=1e12, metavar="N", help="budget that chip-days are for"
    )
    verb.add_argument("--output_dir", metavar="DIR", help="where compile.json and .md are written")
