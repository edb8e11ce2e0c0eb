"""What a sweep tries, in which order, and what it makes of the answers; no compiler runs."""

import dataclasses
import types

import pytest

from moe_jax.errors import UserError
from moe_jax.pods import sweep as sweeping
from moe_jax.pods import variants
from moe_jax.pods.compiler import Job
from moe_jax.pods.sweep import nearest_fit, sweep
from moe_jax.pods.topologies import parse

FILES = ("runs/pretrain.gin", "models/8b_64e.gin", "routers/expert_choice.gin")
V5E = Job(parse("v5e:4x4"), FILES, ("Data.batch_size=512", "Train.steps=7"))


@dataclasses.dataclass
class Compiler:
    """Answers with seconds, and whether it fits, by what a configuration has bound."""

    seconds: dict
    too_large: tuple = ()
    refused: tuple = ()
    asked: list = dataclasses.field(default_factory=list)

    def __call__(self, job):
        self.asked.append(job)
        bound = "\n".join(job.bindings)
        if any(text in bound for text in self.refused):
            raise UserError("no such thing")
        gain = sum(seconds for text, seconds in self.seconds.items() if text in bound)
        fits = not any(text in bound or not text for text in self.too_large)
        return types.SimpleNamespace(fits=fits, fastest=types.SimpleNamespace(seconds=10 - gain))


@pytest.fixture
def use(monkeypatch):
    def use(compiler):
        monkeypatch.setattr(sweeping, "answer", compiler)
        return compiler

    return use


def test_each_kind_is_tried_on_the_best_before(use):
    best_mesh = "Mesh.expert=16"
    (asynchronous,) = variants.option_variants(V5E.topology)[1].bindings
    compiler = use(Compiler({best_mesh: 2, "Model.remat='named'": 1, asynchronous: 1}))
    told = []
    trials = sweep(V5E, told.append)
    assert len(told) == len(trials) == len(compiler.asked)
    assert told[0].name == "as configured"
    assert told[0].bindings == ()
    assert compiler.asked[0] == V5E
    # Everything is over what the user has bound.
    assert all(tuple(job.bindings[:2]) == V5E.bindings for job in compiler.asked)
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


def test_what_is_worse_is_not_gone_on_with(use):
    use(Compiler({"Mesh.rules": -1, "Model.remat": -2, "compiler_options": -1}))
    told = []
    trials = sweep(V5E, told.append)
    assert told[-1].name == "implicit expert parallelism"
    assert told[-1].bindings == ("Mesh.expert_parallelism='implicit'",)
    assert trials[0].name == "as configured"


def test_meshes_divide_the_devices_and_the_experts(use):
    use(Compiler({}))
    told = []
    sweep(V5E, told.append)
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
    told = []
    trials = sweep(V5E, told.append)
    assert len(trials) == len(compiler.asked)
    fit = [trial for trial in trials if trial.answer and trial.answer.fits]
    large = [trial for trial in trials if trial.answer and not trial.answer.fits]
    refused = [trial for trial in trials if trial.answer is None]
    assert trials == fit + large + refused
    assert "fsdp 16" in trials[0].name
    assert trials[0].seconds == 9
    assert large
    assert all(trial.seconds == float("inf") for trial in large + refused)
    assert refused
    assert {trial.error for trial in refused} == {"no such thing"}


def test_a_configuration_that_is_refused_does_not_hide_what_was_compiled(use):
    def answer(job):
        if job.bindings == V5E.bindings:
            raise UserError("the mesh does not fit")
        return types.SimpleNamespace(fits=False, fastest=types.SimpleNamespace(seconds=1.0))

    use(answer)
    trials = sweep(V5E, lambda trial: None)
    assert trials[0].answer is not None
    assert trials[-1].error == "the mesh does not fit"


def job(*bindings):
    return dataclasses.replace(V5E, bindings=(*V5E.bindings, *bindings))


ALL_KEPT = f"Model.remat_names={variants.KEPT!r}"


def test_the_nearest_fit_keeps_as_much_as_it_can(use):
    compiler = use(Compiler({}, too_large=(repr(variants.KEPT[:6]), repr(variants.KEPT[:5]))))
    told = []
    found = nearest_fit(job("Model.remat='named'", ALL_KEPT), told.append)
    assert found is told[-1]
    assert found.bindings == ("Model.remat='named'", f"Model.remat_names={variants.KEPT[:3]!r}")
    assert [t.answer.fits for t in told] == [False, False, True]
    assert len(compiler.asked) == 3


@pytest.mark.parametrize("kept", [(), variants.KEPT[:1], variants.KEPT[:2]])
def test_what_keeps_little_may_keep_nothing(use, kept):
    use(Compiler({}))
    found = nearest_fit(job("Model.remat='named'", f"Model.remat_names={kept!r}"), lambda t: None)
    nothing = found.bindings == ("Model.remat='full'",)
    assert nothing if kept else found.bindings == ("Model.remat='full'", "Train.accumulation=2")


def test_without_any_rematerialisation_all_of_it_is_tried(use):
    compiler = use(Compiler({}, too_large=("named", "='full'\nTrain.accumulation=2")))
    found = nearest_fit(job("Model.remat='none'"), lambda trial: None)
    assert found.bindings == ("Model.remat='full'",)
    assert len(compiler.asked) == 5
    assert ALL_KEPT in compiler.asked[0].bindings


def test_then_micro_batches_get_smaller(use):
    compiler = use(Compiler({}, too_large=("accumulation=2", "accumulation=4")))
    told = []
    found = nearest_fit(job("Model.remat='full'"), told.append)
    assert found.name == "remat full, 8 micro-batches"
    assert found.bindings == ("Model.remat='full'", "Train.accumulation=8")
    assert len(compiler.asked) == 3
    # From what the configuration has.
    found = nearest_fit(job("Model.remat='full'", "Train.accumulation=8"), told.append)
    assert found.bindings[-1] == "Train.accumulation=16"


def test_micro_batches_have_a_row_for_every_device(use):
    use(Compiler({}, too_large=("",)))
    told = []
    assert nearest_fit(job("Model.remat='full'", "Data.batch_size=64"), told.append) is None
    assert [trial.bindings[-1] for trial in told] == [
        "Train.accumulation=2",
        "Train.accumulation=4",
    ]


def test_refused_ways_are_reported_and_passed_over(use):
    use(Compiler({}, refused=("accumulation=2",)))
    told = []
    found = nearest_fit(job("Model.remat='full'"), told.append)
    assert [trial.error for trial in told] == ["no such thing", ""]
    assert found.bindings[-1] == "Train.accumulation=4"


def test_sparse_cores_are_tried_where_there_are_some():
    names = {v.name for v in variants.option_variants(parse("v5p:4x4x4"))}
    assert names == {
        "XLA's defaults",
        "asynchronous collectives",
        "asynchronous, all-reduces in products",
        "collectives on SparseCores",
    }
    assert len(variants.option_variants(parse("v4:4x4x4"))) == 3


def test_options_that_a_chip_refuses_are_not_tried():
    for topology, is_there in (("v5e:4x4", False), ("v4:4x4x4", True)):
        bindings = [v.bindings[0] for v in variants.option_variants(parse(topology))]
        assert any("xla_tpu_enable_async_all_to_all" in b for b in bindings) == is_there


def test_answer_reads_what_was_compiled(monkeypatch):
    seen = {}
    monkeypatch.setattr(sweeping, "compile_step", lambda job: f"compiled {job.topology}")
    monkeypatch.setattr(
        sweeping, "read_answer", lambda *args: seen.update(args=args) or "the answer"
    )
    assert sweeping.answer(V5E) == "the answer"
    described, topology, compiled = seen["args"]
    assert (described.data.batch_size, topology) == (512, V5E.topology)
    assert compiled == "compiled v5e:4x4"
