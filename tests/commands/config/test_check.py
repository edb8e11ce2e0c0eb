"""`config check`: one line for each mistake, with what would be right and where it was set."""

import json

import pytest
import sentencepiece

from moe_jax import cli, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.data.tasks import catalog
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.data.tasks.vocabulary_size import vocabulary_size
from moe_jax.errors import UserError
from moe_jax.training.schedules import warmup_cosine

QUICKSTART = "--gin_file=runs/quickstart.gin"
PREFIX = "moe-jax: runs/quickstart.gin: "


def test_spans_that_do_not_fit_and_a_path_without_its_prefix(capsys, tmp_path):
    short = ("Data.objective=span_corruption", "Data.sequence_length=2")
    assert "rows of 2 tokens are too short for span corruption" in check(capsys, *short)[2][0]
    (tmp_path / "book.txt").write_text("text")
    path = f"{tmp_path}/book.txt"
    assert check(capsys, f"TASK={path}")[2][0].endswith(f"'text:{path}'.")


def check(capsys, *bindings, files=(QUICKSTART,)):
    """Returns the exit code, what is printed, and the lines on standard error."""
    code = cli.main(["config", "check", *files, *(f"--gin.{b}" for b in bindings)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


@pytest.mark.parametrize(
    ("binding", "line"),
    [
        ("Data.pack=false", "Data.pack must be True or False, not 'false'"),
        ("Data.shuffle=no", "Data.shuffle must be True or False, not 'no'"),
        ("WarmupCosine.peak=-1e-3", "WarmupCosine.peak must be above 0, not -0.001"),
        ("WarmupCosine.peak=0", "WarmupCosine.peak must be above 0, not 0"),
        ("WarmupCosine.peak=1e400", "WarmupCosine.peak must be above 0 and finite, not inf"),
        ("AdamW.b1=1.5", "AdamW.b1 must be in [0, 1), not 1.5"),
        ("AdamW.weight_decay=-1", "AdamW.weight_decay must be 0 or more, not -1"),
        ("Loss.z_loss=1e400", "Loss.z_loss must be 0 or more and finite, not inf"),
        ("Model.num_experts=2.5", "Model.num_experts must be a whole number, 0 (dense) or more"),
        ("Data.seed=1.5", "Data.seed must be a whole number from -2,147,483,648"),
        ("Train.seed=1.5", "Train.seed must be a whole number from -2,147,483,648"),
        ("Checkpoints.every=2.5", "Checkpoints.every must be a whole number above 0, not 2.5"),
        ("Model.relative_buckets=1", "Model.relative_buckets must be a whole number, 2 or more"),
        ("Experiment.optimizer=None", "Experiment.optimizer must be @Adafactor() or @AdamW(), not"),
        ("ExpertChoice.capacity_factor=1e400", "ExpertChoice.capacity_factor must be above 0 and"),
        ("Train.profile_at=1000", "Train.profile_at = 1000 is after the last step, Train.steps ="),
        ("TASK=embeded", "unknown task 'embeded'; `moe-jax data list` shows the known, and text"),
        ("TASK={'embedded': 1.0, 'c5': 1.0}", "unknown task 'c5'; `moe-jax data list` shows the"),
        ("TASK=text:", "unknown task 'text:'; `moe-jax data list` shows the known, and text:FI"),
        # Of the same kinds.
        ("STEPS=2.5", "Train.steps must be a whole number above 0, not 2.5 (STEPS, in --gin.STEPS"),
        ("STEPS=1e3", "Train.steps must be a whole number above 0, not 1000.0 (write 1000)"),
        (
            "Data.sequence_length='1024'",
            "Data.sequence_length must be a whole number above 0, not '",
        ),
        ("Data.batch_size=True", "Data.batch_size must be a whole number above 0, not True"),
        ("Train.steps=4294967296", "Train.steps must be a whole number from 1 to 2,147,483,647"),
        ("AdamW.b2=1", "AdamW.b2 must be in [0, 1), not 1 "),
        ("AdamW.epsilon=-1e-8", "AdamW.epsilon must be 0 or more, not -1e-08"),
        ("AdamW.max_gradient_norm=None", "AdamW.max_gradient_norm must be a number 0 (no clipping"),
        ("AdamW.learning_rate=1e-3", "AdamW.learning_rate must be @InverseSquareRoot() or @Warmup"),
        ("AdamW.learning_rate=@WarmupCosine", "AdamW.learning_rate must be @InverseSquareRoot() o"),
        ("Experiment.router=@TokenChoice", "Experiment.router must be one of @Adaptive(), "),
        ("Experiment.data=@Loss()", "Experiment.data must be @Data(), not @Loss()"),
        ("Experiment.train=3", "Experiment.train must be @Train(), not 3"),
        ("Data.task={'embedded': -1}", "Data.task['embedded'] must be above 0, not -1"),
        ("Model.remat_names='qkv'", "Model.remat_names must be a tuple in parentheses, not 'qkv'"),
        ("Model.compute_dtype=float16", "Model.compute_dtype = 'float16' (in --gin.Model.compute_"),
        ("Mesh.rules={'embed': 3}", "Mesh.rules['embed'] must be a name, or a tuple"),
        (
            "Mesh.rules={'embed': ('fsdp', 'fsdp')}",
            "Mesh.rules: 'embed' is sharded along 'fsdp' twice",
        ),
        ("Sampling.temperature=hot", "Sampling.temperature must be a number 0 or more, not 'hot'"),
        ("Writers.wandb_project=3", "Writers.wandb_project must be a name, or None, not 3"),
        ("Train.steps=%gin.REQUIRED", "Train.steps needs a value"),
        (
            "Watchdog.timeout=9000",
            "Watchdog.pause_timeout = 7200.0 must be Watchdog.timeout = 9000",
        ),
        (
            "WarmupCosine.warmup_steps=160",
            "WarmupCosine.warmup_steps = 160 must be below WarmupCos",
        ),
        # What takes the model, the mesh or the vocabulary to find.
        ("Model.vocab_size=8000", "Model.vocab_size = 8000 is smaller than the vocabulary of 8192"),
        ("Data.vocabulary=/no/where.model", "there is no vocabulary /no/where.model"),
        ("Mesh.data=3", "16 rows (Data.batch_size / Train.accumulation) do not divide over Mesh"),
        ("Mesh.tensor=8", "Mesh.tensor = 8 does not divide Model.num_heads = 4"),
        ("Mesh.expert=16", "Mesh.expert = 16 does not divide Model.num_experts = 8"),
    ],
)
def test_a_mistake_is_one_line(capsys, binding, line):
    code, out, errors = check(capsys, binding)
    assert (code, out, len(errors)) == (1, "", 1), errors
    assert errors[0].startswith(PREFIX + line)


def test_all_mistakes_are_told_each_in_a_line(capsys):
    bindings = [
        "Data.pack=false",
        "AdamW.b1=1.5",
        "Train.accumulation=5",
        "Modle.x=1",
        "Mesh.data=0",
    ]
    code, _, errors = check(capsys, *bindings)
    assert code == 1
    assert sorted(errors) == sorted(
        f"{PREFIX}{line}"
        for line in (
            "nothing called 'Modle' can be configured (in --gin.Modle.x=1). Did you mean 'Model'?",
            "Data.pack must be True or False, not 'false' (in --gin.Data.pack=false)",
            "Mesh.data must be a whole number above 0, or -1 for the rest, not 0 "
            "(in --gin.Mesh.data=0)",
            "AdamW.b1 must be in [0, 1), not 1.5 (in --gin.AdamW.b1=1.5)",
        )
    )


def test_training_tells_them_too_and_starts_nothing(capsys, tmp_path):
    argv = ["train", QUICKSTART, "--gin.Data.pack=false", "--gin.AdamW.b1=1.5"]
    assert cli.main([*argv, f"--output_dir={tmp_path / 'run'}"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(" must")[0] for line in errors] == [
        "moe-jax: Data.pack",
        "moe-jax: AdamW.b1",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "bindings", [["AdamW.epsilon=0"], ["STEPS=4"], ["Model.remat_names=['qkv']", "Mesh.expert=8"]]
)
def test_what_is_right_is_ok(capsys, bindings):
    code, out, errors = check(capsys, *bindings)
    assert (code, out, errors) == (0, "ok  runs/quickstart.gin\n", [])


def test_another_router_over_a_run_is_no_reason_to_wonder(capsys):
    code, out, _ = check(capsys, files=[QUICKSTART, "--gin_file=routers/topk.gin"])
    assert (code, out) == (0, "ok  runs/quickstart.gin, routers/topk.gin\n")
    code, out, _ = check(capsys, "Hash.method=modulo")
    assert code == 0
    assert out.endswith(
        "not used in this configuration: Hash.method (in --gin.Hash.method=modulo)\n"
    )


def test_the_warm_up_of_the_quickstart_follows_its_steps():
    """Of 160 steps 10 as ever, to the bit; of 4 none."""
    loaded = experiments.load(ConfigSource(["runs/quickstart.gin"]))
    before = warmup_cosine(2e-3, 160, 10)
    rates = [float(loaded.optimizer.learning_rate(step)) for step in range(161)]
    assert rates == [float(before(step)) for step in range(161)]
    short = experiments.load(ConfigSource(["runs/quickstart.gin"], ["STEPS=4"]))
    assert float(short.optimizer.learning_rate(0)) == float(warmup_cosine(2e-3, 4, 0)(0))
    own = experiments.load(ConfigSource(["runs/quickstart.gin"], ["WarmupCosine.warmup_steps=3"]))
    assert float(own.optimizer.learning_rate(0)) == float(warmup_cosine(2e-3, 160, 3)(0))


def test_the_size_of_a_vocabulary(tmp_path):
    """8,092 pieces and T5's 100 sentinels; see tests/data for seqio's own count."""
    assert vocabulary_size("embedded") == 8192
    assert vocabulary_size("gs://somewhere/vocabulary.model") is None


@pytest.mark.parametrize("task", ["embedded", "c4", "text:my/*.txt", "curriculum:scores"])
def test_plain_texts_are_known_without_tensorflow(monkeypatch, task):
    """The names of all tasks come with it, and take seconds."""
    monkeypatch.setattr(catalog, "names", lambda: pytest.fail("it imports TensorFlow"))
    assert catalog.unknown_task(task) is None


def test_a_vocabulary_needs_an_end_for_documents(tmp_path):
    """Without one, documents would end with the token -1."""
    make = sentencepiece.SentencePieceTrainer.train
    text = iter(["a whale and a ship", "a ship and a boat"] * 20)
    model = tmp_path / "no_end.model"
    with open(model, "wb") as file:
        make(sentence_iterator=text, model_writer=file, vocab_size=18, eos_id=-1, minloglevel=2)
    for load in (vocabulary_size, load_vocabulary):
        with pytest.raises(UserError, match=r"no_end\.model has no end-of-sequence token"):
            load(str(model))


@pytest.mark.parametrize("name", ["v6e_256_64_experts", "v5p_256_64_experts", "expert_fsdp"])
def test_a_mesh_for_other_devices_than_these_passes(capsys, name):
    named = ["runs/pretrain.gin", "models/8b_64e.gin", f"mesh/{name}.gin"]
    code, out, errors = check(capsys, files=[f"--gin_file={file}" for file in named])
    assert (code, errors) == (0, []), out


def test_json(capsys):
    assert cli.main(["config", "check", QUICKSTART, "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == {"checked": [["runs/quickstart.gin"]]}
