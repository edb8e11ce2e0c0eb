"""configs/finetune/: on top of the configuration that a run has saved."""

import pytest
from tiers import mostly_slow

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.training.checkpointing.best import Ranking

FILE = "finetune/task.gin"
BASES = {
    "quickstart": ["runs/quickstart.gin"],
    "a pod": ["runs/pretrain.gin", "routers/gshard_top2.gin"],
    "a study": ["studies/tiny_8e.gin", "routers/switch.gin"],
}
# All but the one that counts the tokens of the data.
ROUTERS = [name for name in config.shipped() if name.startswith("routers/")]
ROUTERS.remove("routers/hash_balanced.gin")


def saved(path, files, bindings=()):
    """Writes the operative configuration of a run, as training does."""
    experiments.load(ConfigSource(files, bindings))
    path.write_text(config.operative())
    return str(path)


def load(*files, bindings=()):
    given = ["Initial.checkpoint=runs/base", *bindings]
    return experiments.load(ConfigSource(files, given))


@pytest.mark.parametrize("base", mostly_slow(BASES))
def test_it_goes_on_top_of_a_run(base, tmp_path):
    own = saved(tmp_path / "config.gin", BASES[base])
    before = experiments.load(ConfigSource([own]))
    tuned = load(own, FILE)
    assert config.unused() == []
    # The model and the router are those of the run, the rest is the task's.
    assert (tuned.router, tuned.loss) == (before.router, before.loss)
    assert tuned.model.dropout == 0.1
    assert tuned.model.expert_dropout == 0.4
    assert tuned.initial.checkpoint == "runs/base"
    assert (tuned.data.task, tuned.data.pack) == ("glue_sst2_v002", True)
    assert tuned.data.vocabulary == before.data.vocabulary
    assert tuned.task_scores.in_training
    assert tuned.checkpoints.ranking == Ranking("task/accuracy", lowest=False)
    rates = [float(tuned.optimizer.learning_rate(step)) for step in (0, 20, 1000, 1999)]
    assert rates == pytest.approx([1e-3 / 20, 1e-3, 1e-3, 1e-3])


def test_macros_and_what_a_tuned_run_has_saved(tmp_path):
    own = saved(tmp_path / "base.gin", BASES["quickstart"])
    macros = {
        "STEPS": 300,
        "TASK": "super_glue_boolq_v102",
        "RATE": 5e-4,
        "ROWS": 16,
        "LENGTH": 128,
        "EVAL_EVERY": 50,
        "BEST": "-loss",
        "DROPOUT": 0.0,
        "EXPERT_DROPOUT": 0.0,
    }
    given = [f"{name}={value}" for name, value in macros.items()]
    tuned = load(own, FILE, bindings=given)
    assert tuned.data.task == "super_glue_boolq_v102"
    assert (tuned.data.batch_size, tuned.data.sequence_length) == (16, 128)
    assert (tuned.train.steps, tuned.train.eval_every, tuned.checkpoints.every) == (300, 50, 50)
    assert tuned.checkpoints.ranking == Ranking("loss", lowest=True)
    assert (tuned.model.dropout, tuned.model.expert_dropout) == (0.0, 0.0)
    assert float(tuned.optimizer.learning_rate(299)) == pytest.approx(5e-4)
    # Its own configuration is the same experiment, and a base for another one.
    again = saved(tmp_path / "tuned.gin", [own, FILE], [*given, "Initial.checkpoint=a"])
    repeated = experiments.load(ConfigSource([again]))
    assert repeated.data == tuned.data
    assert repeated.initial.checkpoint == "a"
    assert load(again, FILE).train.steps == 2000


@pytest.mark.parametrize("router", mostly_slow(ROUTERS, ["routers/gshard_top2.gin"]))
def test_another_router_has_its_own_pool(router, tmp_path):
    """The pool of the run's router, which is in its configuration, is not that of another."""
    own = saved(tmp_path / "config.gin", BASES["quickstart"], ["Pool.rows=2"])
    expected = experiments.load(ConfigSource(["runs/quickstart.gin", router])).router.pool
    assert load(own, FILE, router).router.pool == expected
    # What the user sets stays.
    assert load(own, FILE, router, bindings=["Pool.rows=4"]).router.pool.rows == 4


def test_what_cannot_be_is_said_at_once(tmp_path):
    own = saved(tmp_path / "config.gin", BASES["quickstart"])
    with pytest.raises(UserError, match=r"best_is = 'task/f1' .*TaskScores.in_training = True"):
        load(own, FILE, bindings=["BEST=task/f1", "TaskScores.in_training=False"])
    with pytest.raises(UserError, match=r"names 'los', .*Did you mean 'loss'\?"):
        load(own, FILE, bindings=["BEST=-los"])
    with pytest.raises(UserError, match=r"set Checkpoints.keep_best above 0"):
        load(own, FILE, bindings=["Checkpoints.keep_best=0"])
    with pytest.raises(UserError, match=r"Checkpoints.every = 30 does not divide"):
        load(own, FILE, bindings=["Checkpoints.every=30"])
    with pytest.raises(UserError, match=r"Train.patience = 10 counts evaluations"):
        load(own, FILE, bindings=["EVAL_EVERY=0", "Checkpoints.every=1"])
