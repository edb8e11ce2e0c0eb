"""The search for a configuration that fits, with a fake compiler."""

import dataclasses
import types

import pytest
from fake_compiler import V5E, Compiler, TrialRecorder, install

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.errors import UserError
from moe_jax.pods import fit, variants
from moe_jax.pods.fit import minimum_chips, smallest_slice
from moe_jax.pods.lowering import argument_bytes

ALL_KEPT = f"Model.remat_names={variants.SAVED_ACTIVATIONS!r}"
# All of the state is sharded already: no mesh has less of it.
SHARDED = ("Mesh.data=1", "Mesh.fsdp=-1")


@pytest.fixture
def use(monkeypatch):
    return lambda compiler: install(monkeypatch, compiler)


def job(*bindings, topology="v5e:4x4"):
    source = dataclasses.replace(V5E.source, bindings=(*V5E.source.bindings, *bindings))
    return dataclasses.replace(V5E, source=source, topology=parse_topology(topology))


def search(asked, observer=None):
    memory = types.SimpleNamespace(total=100)
    configured = types.SimpleNamespace(fits=False, fastest=None, memory=memory)
    return fit.nearest_fit(asked, configured, observer or TrialRecorder())


def test_mesh_files_come_first_then_meshes_then_saved_activations(use):
    compiler = use(Compiler(too_large=("",)))
    observer = TrialRecorder()
    trials = search(job(topology="v5e:16x16"), observer)
    assert trials == observer.trials
    assert trials[0].files == ("mesh/v5e_256_64_experts.gin",)
    assert compiler.asked[0].source.files[-1] == "mesh/v5e_256_64_experts.gin"
    meshes = [trial for trial in trials if "Mesh.rules" in str(trial.bindings)]
    assert trials[1 : 1 + len(meshes)] == meshes
    # No more than some, all over all 256 devices; the most devices for the experts first.
    assert len(meshes) == fit.MAX_MESHES
    assert "Mesh.expert=64" in meshes[0].bindings
    rest = trials[1 + len(meshes) :]
    kinds = ["tensor" if "Mesh.tensor" in str(t.bindings) else "saving" for t in rest]
    assert kinds == sorted(kinds)
    assert set(kinds) == {"saving", "tensor"}
    named = [text for text in observer.started if text.startswith("mesh 1 of")]
    assert named == [f"mesh 1 of {fit.MAX_MESHES}: {meshes[0].name}"]


def test_the_first_that_fits_ends_it(use):
    compiler = use(Compiler())
    trials = search(job(topology="v5e:16x16"))
    assert [trial.fits for trial in trials] == [True]
    assert len(compiler.asked) == 1


def test_a_file_that_is_used_already_or_cannot_be_is_not_tried(use):
    compiler = use(Compiler(too_large=("v5e_256",)))
    used = job(topology="v5e:16x16")
    files = (*used.source.files, "mesh/v5e_256_64_experts.gin")
    used = dataclasses.replace(used, source=dataclasses.replace(used.source, files=files))
    assert all(not trial.files for trial in search(used))
    # 16 chips are too few for 64.
    compiler.asked.clear()
    search(job())
    assert not any("mesh/" in file for asked in compiler.asked for file in asked.source.files)


def test_meshes_without_less_state_are_not_tried(use):
    use(Compiler(too_large=("",)))
    assert not any("Mesh.expert" in str(t.bindings) for t in search(job(*SHARDED)))
    # What holds a quarter of it can hold less: state sharded over all 16 devices.
    (first, *_) = search(job("Mesh.data=4", "Mesh.fsdp=4"))
    assert first.bindings[:3] == ("Mesh.fsdp=1", "Mesh.data=1", "Mesh.expert=16")


def test_fewer_activations_are_saved_on_the_mesh_with_the_least_memory(use):
    compiler = use(Compiler(too_large=("",), saved={"Mesh.expert=8": 50, "Mesh.expert=16": 20}))
    search(job("Model.remat='none'"))
    last = [asked for asked in compiler.asked if ALL_KEPT in asked.source.bindings]
    assert last
    assert all("Mesh.expert=8" in asked.source.bindings for asked in last)
    # One of each shape: the cuts with the least state.
    shapes = [
        asked.source.bindings[-4:-1]
        for asked in compiler.asked
        if "Mesh.rules" in asked.source.bindings[-1]
    ]
    assert len(shapes) == len(set(shapes)) == fit.MAX_MESHES


def test_tensor_parallelism_is_the_last_resort(use):
    use(Compiler(too_large=("",)))
    trials = search(job(*SHARDED, "Model.remat='full'", "Train.accumulation=32"))
    assert [trial.bindings for trial in trials] == [
        ("Mesh.data=1", f"Mesh.fsdp={16 // size}", f"Mesh.tensor={size}") for size in (2, 4, 8)
    ]


def test_the_nearest_fit_saves_as_many_activations_as_fit(use):
    compiler = use(
        Compiler(
            too_large=(repr(variants.SAVED_ACTIVATIONS[:6]), repr(variants.SAVED_ACTIVATIONS[:5]))
        )
    )
    observer = TrialRecorder()
    found = search(job(*SHARDED, "Model.remat='named'", ALL_KEPT), observer)[-1]
    assert found is observer.trials[-1]
    assert found.bindings == (
        "Model.remat='named'",
        f"Model.remat_names={variants.SAVED_ACTIVATIONS[:3]!r}",
    )
    assert [t.report.fits for t in observer.trials] == [False, False, True]
    assert len(compiler.asked) == 3


@pytest.mark.parametrize(
    "kept", [(), variants.SAVED_ACTIVATIONS[:1], variants.SAVED_ACTIVATIONS[:2]]
)
def test_few_saved_activations_become_none(use, kept):
    use(Compiler())
    found = search(job(*SHARDED, "Model.remat='named'", f"Model.remat_names={kept!r}"))[-1]
    nothing = found.bindings == ("Model.remat='full'",)
    assert nothing if kept else found.bindings == ("Model.remat='full'", "Train.accumulation=2")


def test_without_any_rematerialisation_all_of_it_is_tried(use):
    compiler = use(Compiler(too_large=("named", "='full'\nTrain.accumulation=2")))
    found = search(job(*SHARDED, "Model.remat='none'"))[-1]
    assert found.bindings == ("Model.remat='full'",)
    assert len(compiler.asked) == 5
    assert ALL_KEPT in compiler.asked[0].source.bindings


def test_then_micro_batches_get_smaller(use):
    compiler = use(Compiler(too_large=("accumulation=2", "accumulation=4")))
    observer = TrialRecorder()
    found = search(job(*SHARDED, "Model.remat='full'"), observer)[-1]
    assert found.name == "remat full, 8 micro-batches"
    assert found.bindings == ("Model.remat='full'", "Train.accumulation=8")
    assert len(compiler.asked) == 3
    # From what the configuration has.
    found = search(job(*SHARDED, "Model.remat='full'", "Train.accumulation=8"), observer)[-1]
    assert found.bindings[-1] == "Train.accumulation=16"


def test_micro_batches_have_a_row_for_every_device(use):
    use(Compiler(too_large=("",)))
    observer = TrialRecorder()
    search(job(*SHARDED, "Model.remat='full'", "Data.batch_size=64"), observer)
    tried = [trial.bindings[-1] for trial in observer.trials if "Mesh" not in trial.bindings[-1]]
    assert tried == ["Train.accumulation=2", "Train.accumulation=4"]


def test_rejected_variants_are_reported_and_skipped(use):
    use(Compiler(refused=("accumulation=2",)))
    observer = TrialRecorder()
    found = search(job(*SHARDED, "Model.remat='full'"), observer)[-1]
    assert [trial.error for trial in observer.trials] == ["no such thing", ""]
    assert found.bindings[-1] == "Train.accumulation=4"


def test_chips_that_the_state_fills():
    files = ["runs/pretrain.gin", "models/tiny_8e.gin", "mesh/fsdp.gin"]
    run = experiments.load(ConfigSource(files, ["Data.batch_size=512"]))
    # Adafactor keeps a row and a column of a matrix: little; the batch has some megabytes.
    parameters = 4 * run.parameters().total
    whole = sum(argument_bytes(dataclasses.replace(run, mesh=type(run.mesh)()), 1).values())
    assert parameters < whole < 1.2 * parameters
    small = dataclasses.replace(parse_topology("v5e:4x4").chip, hbm_limit=whole / 3.5)
    topology = dataclasses.replace(parse_topology("v5e:4x4"), chip=small)
    assert minimum_chips(run, topology) == 4
    two = dataclasses.replace(
        parse_topology("tpu7x:2x2x2"),
        chip=dataclasses.replace(parse_topology("tpu7x:2x2x2").chip, hbm_limit=whole / 3.5),
    )
    assert two.chip.devices == 2
    assert minimum_chips(run, two) == 4


def test_the_smallest_slice_so_many_chips():
    assert smallest_slice(parse_topology("v5e:4x4"), 34) == "v5e:8x8"
    assert smallest_slice(parse_topology("v5e:4x4"), 64) == "v5e:8x8"
    assert smallest_slice(parse_topology("v5e:4x4"), 257) is None


def test_the_state_is_sharded_by_the_rules_of_the_mesh():
    files = ["runs/pretrain.gin", "models/tiny_8e.gin", "routers/expert_choice.gin"]
    sizes = {}
    for name, bindings in {
        "whole": ["Mesh.data=-1"],
        "fsdp": ["Mesh.data=1", "Mesh.fsdp=16"],
        "expert": ["Mesh.data=2", "Mesh.expert=8"],
    }.items():
        run = experiments.load(ConfigSource(files, ["Data.batch_size=512", *bindings]))
        sizes[name] = argument_bytes(run, 16)
    counted = experiments.load(ConfigSource(files)).parameters()
    assert sizes["whole"]["parameters"] == 4 * counted.total
    # All that has an axis `embed` is sharded over all 16; norms and such are not.
    assert sizes["fsdp"]["parameters"] == pytest.approx(4 * counted.total / 16, rel=0.02)
    assert sizes["fsdp"]["parameters"] < sizes["expert"]["parameters"]
    rows = 512 // 16
    assert sizes["whole"]["batch"] == sizes["fsdp"]["batch"] == rows * 1024 * (4 + 4 + 4)
    with pytest.raises(UserError, match="does not make 16 devices"):
        argument_bytes(experiments.load(ConfigSource(files, ["Mesh.expert=64"])), 16)
