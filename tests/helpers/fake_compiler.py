"""A compiler for the searches of `moe-jax compile`: it answers by what a job has bound."""

import contextlib
import dataclasses
import types

from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.errors import UserError
from moe_jax.pods import fit, sweep
from moe_jax.pods.compiler import CompileJob
from moe_jax.pods.sweep import TrialObserver, load_experiment

FILES = ("runs/pretrain.gin", "models/8b_64e.gin", "routers/expert_choice.gin")
V5E = CompileJob(
    parse_topology("v5e:4x4"), ConfigSource(FILES, ("Data.batch_size=512", "Train.steps=7"))
)
# Of parameters, optimiser state and batch if nothing is sharded.
WHOLE_BYTES = 100 << 30


@dataclasses.dataclass
class Compiler:
    """Answers with seconds, and whether it fits, by the bindings and files of a job."""

    seconds: dict = dataclasses.field(default_factory=dict)
    too_large: tuple = ()
    refused: tuple = ()
    # Bytes that a text in the job saves.
    saved: dict = dataclasses.field(default_factory=dict)
    asked: list = dataclasses.field(default_factory=list)

    def __call__(self, job, on_progress=None):
        self.asked.append(job)
        bound = "\n".join((*job.source.files, *job.source.bindings))
        if any(text in bound for text in self.refused):
            raise UserError("no such thing")
        gain = sum(seconds for text, seconds in self.seconds.items() if text in bound)
        fits = not any(text in bound or not text for text in self.too_large)
        total = 100 - sum(size for text, size in self.saved.items() if text in bound)
        return types.SimpleNamespace(
            fits=fits,
            fastest=types.SimpleNamespace(seconds=10 - gain),
            memory=types.SimpleNamespace(total=total),
        )


@dataclasses.dataclass
class TrialRecorder(TrialObserver):
    """Remembers what a search says."""

    started: list = dataclasses.field(default_factory=list)
    trials: list = dataclasses.field(default_factory=list)

    def running(self, name):
        self.started.append(name)
        return contextlib.nullcontext(lambda detail: None)

    def finished(self, trial):
        self.trials.append(trial)


def sharded_bytes(job):
    """Stands for `minimum_bytes`: all of the state is sharded over `fsdp` and `expert`."""
    sizes = load_experiment(job).mesh.sizes(job.topology.device_count)
    return {"parameters": WHOLE_BYTES // (sizes["fsdp"] * sizes["expert"])}


def install(monkeypatch, compiler):
    """Puts a compiler in the place of libtpu's, and returns it."""
    monkeypatch.setattr(sweep, "compile_and_report", compiler)
    for module in (sweep, fit):
        monkeypatch.setattr(module, "minimum_bytes", sharded_bytes)
    return compiler
