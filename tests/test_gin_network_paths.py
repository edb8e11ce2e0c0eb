"""A run directory on this machine does not decide which places on a network are read."""

import pytest

from moe_jax import config, experiments, gin_network_paths
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.gin_statements import StatementReader

QUICKSTART = ["runs/quickstart.gin"]


@pytest.fixture
def run(tmp_path):
    """Returns a function that writes a run's configuration, with more lines after it."""

    def write(*lines):
        experiments.load(ConfigSource(QUICKSTART))
        path = tmp_path / "config.gin"
        path.write_text("\n".join((config.operative(), *lines)))
        return str(path)

    return write


@pytest.mark.parametrize(
    "line",
    [
        "Data.tfds_data_dir = 'gs://stranger/data'",
        "moe_jax.Data.vocabulary = 's3://stranger/v.model'",
        "Data.cache_dir = '/gs/stranger/cache'",
        "Data.task = 'text:gs://stranger/*.txt'",
        "TASK = 'jsonl:https://stranger/x.jsonl'",
        "Data.task = {'text:hf://stranger/a.txt': 0.5, 'embedded': 0.5}",
        "x/Data.cache_dir = 'gs://stranger/cache'",
        "Data:\n  cache_dir = 'gs://stranger/cache'",
    ],
)
def test_places_of_a_stranger_are_refused(run, line):
    own = run(line)
    with pytest.raises(UserError, match=r"was refused .*add .*--gin.*stranger") as error:
        experiments.load(ConfigSource([own], run_config=own))
    assert "\n" not in str(error.value)
    # A file that the user names is the user's own.
    assert experiments.load(ConfigSource([own])).data


def test_the_checkpoint_that_a_run_began_from_is_not_read_again(run):
    """`--gin.Initial.checkpoint` of a run that was fine-tuned: evaluating it reads the run only."""
    own = run("Initial.checkpoint = 'gs://stranger/run'")
    loaded = experiments.load(ConfigSource([own], run_config=own))
    assert loaded.initial.checkpoint == "gs://stranger/run"
    own = run("OTHER = 'gs://stranger/run'", "Initial.checkpoint = %OTHER", "Data.cache_dir=%OTHER")
    with pytest.raises(UserError, match="OTHER = 'gs://stranger/run' was refused"):
        experiments.load(ConfigSource([own], run_config=own))


def test_what_the_user_gives_instead_is_taken(run, tmp_path):
    own = run("Data.tfds_data_dir = 'gs://stranger/data'")
    given = "Data.tfds_data_dir=gs://stranger/data"
    assert (
        experiments.load(ConfigSource([own], [given], run_config=own)).data.tfds_data_dir
        == "gs://stranger/data"
    )
    local = experiments.load(
        ConfigSource([own], ["moe_jax.Data.tfds_data_dir=/data"], run_config=own)
    )
    assert local.data.tfds_data_dir == "/data"
    (tmp_path / "mine.gin").write_text("Data.tfds_data_dir = 'gs://mine/data'")
    mine = experiments.load(ConfigSource([own, str(tmp_path / "mine.gin")], run_config=own))
    assert mine.data.tfds_data_dir == "gs://mine/data"


def test_the_packages_own_places_are_allowed(run):
    """runs/pretrain.gin takes T5's vocabulary from its bucket."""
    experiments.load(ConfigSource(["runs/pretrain.gin"]))
    vocabulary = experiments.load(ConfigSource(["runs/pretrain.gin"])).data.vocabulary
    assert vocabulary.startswith("gs://t5-data/")
    own = run(f"Data.vocabulary = '{vocabulary}'")
    assert experiments.load(ConfigSource([own], run_config=own)).data.vocabulary == vocabulary
    own = run("Data.vocabulary = 'gs://t5-data.evil/v.model'")
    with pytest.raises(UserError, match="was refused"):
        experiments.load(ConfigSource([own], run_config=own))


def test_a_run_on_a_network_may_name_others():
    lines = StatementReader([""]).statements([], ["Data.tfds_data_dir = 'gs://data/c4'"])
    gin_network_paths.check(lines, "gs://bucket/run/config.gin", [])
    with pytest.raises(UserError, match="was refused"):
        gin_network_paths.check(lines, "", [])
