"""Law 9: every shipped gin file resolves; mistakes are one line that names the nearest name."""

import itertools

import pytest

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.data.pipeline import input_pipeline
from moe_jax.errors import UserError

QUICKSTART = ["runs/quickstart.gin"]
# Of one run; the others are studies, in tests/configs/test_studies.py.
RUNS = ["runs/pretrain.gin", "runs/quickstart.gin"]
PARTS = {
    kind: [name for name in config.shipped() if name.startswith(f"{kind}/")]
    for kind in ("models", "routers", "optim", "data")
}


@pytest.mark.parametrize("run", RUNS)
def test_every_run_resolves_and_uses_all_its_macros(run):
    loaded = experiments.load(ConfigSource([run]))
    assert loaded.train.steps > 0
    # What is printed is complete: read again, it describes the same experiment.
    text = config.operative()
    assert "Model.num_layers" in text


@pytest.mark.parametrize(
    "parts", itertools.zip_longest(*PARTS.values()), ids=lambda p: "+".join(filter(None, p))
)
def test_every_file_works_on_top_of_a_run(parts, monkeypatch):
    # Counting the tokens of the text takes longer than all else.
    monkeypatch.setattr(input_pipeline, "count_tokens", lambda data, batches: (1,) * 8192)
    loaded = experiments.load(
        ConfigSource(QUICKSTART + [p for p in parts if p], ["Data.batch_size=512"])
    )
    assert loaded.parameters().total > 0


def test_the_operative_configuration_describes_the_same_experiment(tmp_path):
    first = experiments.load(
        ConfigSource(QUICKSTART, ["Model.num_layers=2", "ExpertChoice.capacity_factor=1.5"])
    )
    (tmp_path / "config.gin").write_text(config.operative())
    again = experiments.load(ConfigSource([str(tmp_path / "config.gin")]))
    assert (again.model, again.router, again.data) == (first.model, first.router, first.data)
    assert (again.train, again.sampling) == (first.train, first.sampling)
    over = experiments.load(
        ConfigSource([str(tmp_path / "config.gin")], ["ExpertChoice.capacity_factor=1"])
    )
    assert over.router.capacity_factor == 1


def test_later_files_win(tmp_path):
    own = tmp_path / "own.gin"
    own.write_text("Model.num_layers = 6\n")
    assert experiments.load(ConfigSource([*QUICKSTART, str(own)])).model.num_layers == 6
    assert (
        experiments.load(
            ConfigSource([*QUICKSTART, "own.gin"], [], [str(tmp_path)])
        ).model.num_layers
        == 6
    )


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("Train.steps=5", "Train.steps = 5"),
        ("TASK=c4", "TASK = 'c4'"),
        ("TASK='c4'", "TASK = 'c4'"),
        ("TASK=text:/home/me/*.txt", "TASK = 'text:/home/me/*.txt'"),
        ("TASK=text:%a.txt,@Model().txt", "TASK = 'text:%a.txt,@Model().txt'"),
        ("Data.pack=True", "Data.pack = True"),
        ("Data.tfds_data_dir=None", "Data.tfds_data_dir = None"),
        ("Experiment.optimizer=@Adafactor()", "Experiment.optimizer = @Adafactor()"),
        ("Train.steps=%STEPS", "Train.steps = %STEPS"),
        ("Model.remat_names=('qkv', 'moe_in')", "Model.remat_names = ('qkv', 'moe_in')"),
        ("InverseSquareRoot.scale=1e-3", "InverseSquareRoot.scale = 1e-3"),
    ],
)
def test_bindings_need_no_second_quotes(argument, line):
    assert config.binding(argument) == line


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (
            ["Model.num_layer=2"],
            r"Model has no parameter 'num_layer'.* Did you mean 'num_layers'\?",
        ),
        (["Modle.num_layers=2"], r"'Modle' can be configured.* Did you mean 'Model'\?"),
        (["STPES=2"], r"nothing uses 'STPES' \(in --gin.STPES=2\)\. Did you mean 'STEPS'\?"),
        (
            ["Train.steps=%STPES"],
            r"nothing defines the macro %STPES of Train.steps \(in .*\)\. Did you mean 'STEPS'\?",
        ),
        (["Pool.kind=@Pol()"], r"nothing is called @Pol.* Did you mean 'Pool'\?"),
        (["Pool.kind=seqence"], r"Pool.kind = 'seqence' .* Did you mean 'sequence'\?"),
        (["Model.dispatch=gahter"], r"Model.dispatch = 'gahter' .* Did you mean 'gather'\?"),
        (["Train.steps"], r"has no value; expected --gin.NAME=VALUE"),
        (["Train.steps=[1,"], r"the value is not valid Python"),
        (["Train.steps=0"], r"Train.steps must be a whole number above 0, not 0"),
        (["Model.num_layers=3"], r"num_layers = 3 is not a multiple of Model.moe_every = 2"),
        (["ExpertChoice.capacity_factor=0.001"], r"capacity is zero: .*at least 8000 tokens"),
        (["ExpertChoice.capacity_factor=9"], r"more than the 8 experts"),
        (
            ["Pool.kind=position", "Data.batch_size=3"],
            r"position pool: capacity is zero: .*at least 4 tokens.*the batch decides",
        ),
        (["Train.accumulation=5"], r"accumulation = 5 does not divide Data.batch_size"),
        (["Experiment.router=None"], r"needs a router: include a file of routers/"),
        (["Pool.rows=5"], r"pool of 5 rows does not divide a batch of"),
        (["WarmupCosine.warmup_steps=100000"], r"train for more steps \(STEPS.*fewer"),
    ],
)
def test_mistakes_are_one_line(bindings, message):
    with pytest.raises(UserError, match=message) as error:
        experiments.load(ConfigSource(QUICKSTART, bindings))
    assert "\n" not in str(error.value)


def test_mistakes_in_files_name_file_and_line(tmp_path):
    path = tmp_path / "own.gin"
    path.write_text("include 'runs/quickstart.gin'\nModel.num_layrs = 3\n")
    with pytest.raises(UserError, match=r"own.gin, line 2.* Did you mean 'num_layers'"):
        experiments.load(ConfigSource([str(path)]))
    with pytest.raises(UserError, match=r"no gin file 'runs/quikstart.gin'.*'runs/quickstart.gin'"):
        experiments.load(ConfigSource(["runs/quikstart.gin"]))


def test_a_required_value_that_is_missing_is_named(tmp_path):
    path = tmp_path / "own.gin"
    path.write_text("Experiment.model = @Model()\nModel.num_layers = 2\n")
    with pytest.raises(UserError, match=r"Model.vocab_size needs a value"):
        experiments.load(ConfigSource([str(path)]))
