"""The search for the fastest configuration, with a fake compiler."""

import types

import pytest
from fake_compiler import V5E, Compiler, TrialRecorder, install

from moe_jax.errors import UserError
from moe_jax.pods import sweep as sweeping
from moe_jax.pods import variants
from moe_jax.pods.sweep import sweep


@pytest.fixture
def use(monkeypatch):
    return lambda compiler: install(monkeypatch, compiler)


def test_each_kind_is_tried_on_the_best_before(use):
    best_mesh = "Mesh.expert=16"
    (asynchronous,) = variants.option_variants(V5E.topology)[1].bindings
    compiler = use(Compiler({best_mesh: 2, "Model.remat='named'": 1, asynchronous: 1}))
    observer = TrialRecorder()
    told = observer.trials
    trials = sweep(V5E, observer)
    assert len(told) == len(trials) == len(compiler.asked)
    assert told[0].name == "as configured"
    assert told[0].bindings == ()
    assert compiler.asked[0] == V5E
    # Everything is over what the user has bound.
    assert all(tuple(job.source.bindings[:2]) == V5E.source.bindings for job in compiler.asked)
    kinds = [("Mesh.fsdp", 0), ("Model.remat", 1), ("Train.compiler_options", 2)]
    for name, order in kinds:
        tried = [i for i, t in enumerate(told) if t.bindings and name in t.bindings[-1]]
        tried = tried or [i for i, t in enumerate(told) if name in str(t.bindings)]
        assert tried, (name, order)
    # The last kind has all that was better.
    last = told[-1]
    assert best_mesh in last.bindings
    assert "Model.remat='named'" in last.bindings
    assert asynchronous in last.bindings
    assert last.bindings[-1] == "Mesh.expert_parallelism='implicit'"
    assert last.name.count("; ") == 3
    # The fastest first; of equal ones the first that was tried.
    assert [t.seconds for t in trials] == sorted(t.seconds for t in told)
    assert trials[0].seconds == 6
    assert trials[0].bindings[-1] == asynchronous


def test_slower_variants_are_dropped(use):
    use(Compiler({"Mesh.rules": -1, "Model.remat": -2, "compiler_options": -1}))
    observer = TrialRecorder()
    told = observer.trials
    trials = sweep(V5E, observer)
    assert told[-1].name == "implicit expert parallelism"
    assert told[-1].bindings == ("Mesh.expert_parallelism='implicit'",)
    assert trials[0].name == "as configured"


def test_meshes_divide_the_devices_and_the_experts(use):
    use(Compiler({}))
    observer = TrialRecorder()
    told = observer.trials
    sweep(V5E, observer)
    meshes = [dict(b.split("=", 1) for b in t.bindings) for t in told if t.name.count(";") == 0]
    meshes = [m for m in meshes if "Mesh.expert" in m]
    shapes = {(int(m["Mesh.data"]), int(m["Mesh.fsdp"]), int(m["Mesh.expert"])) for m in meshes}
    assert shapes == {(1, 16, 1), (1, 2, 8), (2, 1, 8), (1, 1, 16)}
    assert {
        m["Mesh.rules"] for m in meshes if m["Mesh.expert"] == "8" and m["Mesh.data"] == "2"
    } == {"{'embed': 'expert'}"}


def test_what_does_not_fit_comes_after_what_does_and_refusals_last(use):
    compiler = use(
        Compiler(
            {"Mesh.expert=8": 5, "Mesh.fsdp=16": 1},
            too_large=("Mesh.expert=8",),
            refused=("Mesh.expert=16",),
        )
    )
    observer = TrialRecorder()
    trials = sweep(V5E, observer)
    assert len(trials) == len(compiler.asked)
    fit = [trial for trial in trials if trial.report and trial.report.fits]
    large = [trial for trial in trials if trial.report and not trial.report.fits]
    refused = [trial for trial in trials if trial.report is None]
    assert trials == fit + large + refused
    assert "fsdp 16" in trials[0].name
    assert trials[0].seconds == 9
    assert large
    assert all(trial.seconds == float("inf") for trial in large + refused)
    assert refused
    assert {trial.error for trial in refused} == {"no such thing"}


def test_a_configuration_that_is_refused_does_not_hide_what_was_compiled(use):
    def report(job, on_progress):
        if job.source.bindings == V5E.source.bindings:
            raise UserError("the mesh does not fit")
        return types.SimpleNamespace(fits=False, fastest=types.SimpleNamespace(seconds=1.0))

    use(report)
    trials = sweep(V5E, TrialRecorder())
    assert trials[0].report is not None
    assert trials[-1].error == "the mesh does not fit"


def test_a_report_is_built_from_the_compilation(monkeypatch):
    seen = {}
    monkeypatch.setattr(sweeping, "compile_step", lambda job, say: f"compiled {job.topology}")
    monkeypatch.setattr(
        sweeping, "build_report", lambda *args: seen.update(args=args) or "the report"
    )
    assert sweeping.compile_and_report(V5E) == "the report"
    experiment, topology, compiled = seen["args"]
    assert (experiment.data.batch_size, topology) == (512, V5E.topology)
    assert compiled == "compiled v5e:4x4"
