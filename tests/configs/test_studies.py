"""Every study in configs/runs/: its arms resolve, and compute what its comments say."""

import functools

import pytest
import tpu_compiler

from moe_jax import cli, config
from moe_jax.compare.arms import load_arms
from moe_jax.compare.study import load_study
from moe_jax.compare.study_files import plan_kind
from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.data.pipeline import input_pipeline
from moe_jax.flops import train_flops_per_token
from moe_jax.pods.compiler import CompileJob
from moe_jax.pods.sweep import compile_and_report

STUDIES = [
    name
    for name in config.shipped()
    if name.startswith("runs/") and plan_kind(ConfigSource([name])) == "Study"
]
LAPTOP = [name for name in STUDIES if not name.endswith("_100m.gin")]
PAPER_SIZE = [name for name in STUDIES if name.endswith("_100m.gin")]
CHIPS = 64
# Arms that compute another number of expert slots per token than 2; None: as many as are routed.
SLOTS = {
    "ec_c1": 1.0,
    "ec_c0.5": 0.5,
    "threshold": None,
    "dropless_top2": None,
    "bias": None,
    "quantile": None,
    "adaptive": None,
    "hash": None,
}
# Models, routers and frozen parameters whose arrays have been made: studies have arms in common.
CHECKED = set()
EXPERIMENTS = ("", "_figure2", "_capped", "_hash", "_experts")


@functools.cache
def arms_of(study):
    return load_arms(load_study(ConfigSource([study])))


@pytest.fixture(autouse=True)
def no_counting(monkeypatch):
    """No arm needs the data before it is trained."""
    monkeypatch.delattr(input_pipeline, "count_tokens")


def test_every_experiment_of_the_paper_is_a_study_at_both_sizes():
    for name in EXPERIMENTS:
        assert f"runs/compare{name}.gin" in LAPTOP
        assert f"runs/compare{name}_100m.gin" in PAPER_SIZE


@pytest.mark.parametrize("study", STUDIES)
def test_every_arm_resolves_and_says_what_it_is(study):
    """At the paper's size with its arrays on the mesh that they are for, as shapes only."""
    loaded = load_study(ConfigSource([study])).study
    assert (config.config_root() / study).read_text().startswith("# ")
    assert loaded.question.endswith("?")
    for name, arm in arms_of(study).items():
        assert loaded.descriptions[name] == arm.description
        described = arm.experiment
        key = (described.model, described.router, described.train.frozen)
        if study in PAPER_SIZE and key not in CHECKED:
            CHECKED.add(key)
            model = described.language_model(described.abstract_partition(CHIPS))
            assert described.optimizer.trained(model.abstract().params)


@pytest.mark.parametrize(
    "study", [f"runs/compare{n}{s}.gin" for n in EXPERIMENTS for s in ("", "_100m")]
)
def test_arms_compute_the_slots_that_the_file_says(study):
    for name, arm in arms_of(study).items():
        router = arm.experiment.active_router
        if name.startswith("dense"):
            assert router is None
        else:
            assert router.slots_per_token == SLOTS.get(name, 2.0), name


@pytest.mark.parametrize("study", ["runs/compare.gin", "runs/compare_100m.gin"])
def test_arms_differ_in_their_routers_only(study):
    """Data, optimiser, schedule and loss of the common part; the model of a mixture, too."""
    arms = {name: arm.experiment for name, arm in arms_of(study).items()}
    of_baseline = arms["gshard"]
    for name, arm in arms.items():
        assert arm.data == of_baseline.data
        assert name == "frozen" or arm.train == of_baseline.train
        if not name.startswith("dense"):
            assert arm.model == of_baseline.model
    assert arms["frozen"].router == arms["ec_batch"].router
    assert arms["frozen"].train.frozen == ("router_kernel",)
    assert {arms[f"ec_{k}"].router.pool.kind for k in ("batch", "sequence", "position")} == {
        "batch",
        "sequence",
        "position",
    }
    # Slots are shared by the same tokens.
    for name in ("switch", "ec_batch", "threshold", "frozen"):
        assert arms[name].router.pool == of_baseline.router.pool
    # Trained on its thresholds for most of the run.
    assert 0 < arms["threshold"].router.warmup_steps <= of_baseline.train.steps / 10


@pytest.mark.parametrize(("study", "within"), [("compare", 2e-4), ("compare_100m", 2e-3)])
def test_the_dense_arm_has_the_flops_of_the_mixture(study, within):
    arms = {name: arm.experiment for name, arm in arms_of(f"runs/{study}.gin").items()}
    flops = {name: arm.train_flops_per_token() for name, arm in arms.items()}
    assert flops["dense_flops"] == pytest.approx(flops["gshard"], rel=within)
    # Switch at capacity factor 2 computes as many slots.
    switch = arms["switch"]
    computed = train_flops_per_token(switch.model, 2.0, switch.data.sequence_length)
    assert computed == flops["gshard"] == flops["ec_batch"]


@pytest.mark.parametrize(
    ("study", "width"), [("compare_experts", 512), ("compare_experts_100m", 3072)]
)
def test_experts_of_the_same_size(study, width):
    models = [arm.experiment.model for arm in arms_of(f"runs/{study}.gin").values()]
    assert [model.num_experts for model in models] == [16, 32, 64, 128]
    assert {model.d_ff for model in models} == {width}


def test_caps_and_capacities_are_the_papers():
    routers = {
        name: arm.experiment.router for name, arm in arms_of("runs/compare_capped.gin").items()
    }
    assert (routers["cap_2"].cap, routers["cap_3"].cap) == (2, 3)
    figure = arms_of("runs/compare_figure2.gin")
    capacities = [
        figure[name].experiment.router.capacity_factor for name in ("ec_c2", "ec_c1", "ec_c0.5")
    ]
    assert capacities == [2.0, 1.0, 0.5]


def test_a_study_of_another_size(tmp_path):
    """The macros of its common part reach the arms."""
    own = tmp_path / "own.gin"
    own.write_text("include 'studies/tiny_8e.gin'\nNUM_EXPERTS = 16\nD_FF = 256\n")
    common = f"Study.common=('{own}',)"
    arms = load_arms(load_study(ConfigSource(["runs/compare.gin"], [common])))
    models = {name: arm.experiment.model for name, arm in arms.items()}
    assert (models["hash"].num_experts, models["hash"].d_ff) == (16, 256)
    # (2 x 2 x 256 + 3 x 256 + 16) / 6
    assert models["dense_flops"].d_ff == round((7 * 256 + 16) / 6)


def test_config_check_checks_every_arm(capsys):
    check = ["config", "check", "--gin_file=runs/compare_capped.gin"]
    assert cli.main(check) == 0
    assert "ok  runs/compare_capped.gin" in capsys.readouterr().out
    assert cli.main([*check, "--gin.Mesh.data=3"]) == 1
    (line, *_) = capsys.readouterr().err.splitlines()
    assert line.startswith("moe-jax: runs/compare_capped.gin: arm ec: 16 rows")


@tpu_compiler.needed
@pytest.mark.parametrize(
    ("study", "arm"),
    [
        ("compare_100m", "ec_position"),
        ("compare_100m", "frozen"),
        ("compare_100m", "dense_time"),
        ("compare_experts_100m", "e128"),
    ],
)
def test_arms_of_the_papers_size_compile_and_fit(study, arm):
    source = arms_of(f"runs/{study}.gin")[arm].source
    report = compile_and_report(CompileJob(parse_topology("v5e:8x8"), source))
    assert report.topology.chips == CHIPS
    assert report.fits
