"""No verb runs what a stranger's gin file or run directory brings along."""

import os
import sys

import pytest

from moe_jax import cli, config, experiments, gin_imports
from moe_jax.config_source import ConfigSource

DYNAMIC = "from __gin__ import dynamic_registration\n"
# Each would make the file {mark} if gin acted on it.
EVIL = {
    "import": "import own_evil",
    "import as": "import own_evil as x",
    "from": "from own_evil import x",
    "include": "include '{here}/include.gin'",
    "nested include": "include '{here}/nested.gin'",
    "dynamic": DYNAMIC
    + "import os\nfrom moe_jax import experiments\nos.mkdir.path = '{mark}'\n"
    + "experiment.TrainConfig.steps = @os.mkdir()\n"
    + "experiment.Experiment.train = @experiment.TrainConfig()",
    "macro": DYNAMIC
    + "import os\nfrom moe_jax import experiments\nos.mkdir.path = '{mark}'\n"
    + "STEPS = @os.mkdir()\nexperiment.TrainConfig.steps = %STEPS\n"
    + "experiment.Experiment.train = @experiment.TrainConfig()",
    "scope": DYNAMIC
    + "import os as o\nfrom moe_jax import experiments\ns/o.mkdir.path = '{mark}'\n"
    + "experiment.TrainConfig.steps = @s/o.mkdir()\n"
    + "experiment.Experiment.train = @experiment.TrainConfig()",
    "name": "Train.steps = @os.system()",
    "name of what is set": "os.system.command = 'touch {mark}'",
}
VERBS = {
    "config check": ["config", "check"],
    "config show": ["config", "show"],
    "sharding": ["config", "show", "--sharding"],
    "train": ["train", "--output_dir={here}/out"],
    "data show": ["data", "show"],
    "data stats": ["data", "stats", "embedded"],
    "data cache": ["data", "cache", "--output_dir={here}/out"],
    "compile": ["compile", "--topology=v4:2x2x1"],
    "bench step": ["bench", "step"],
    "bench data": ["bench", "data"],
}
OF_RUNS = {
    "eval": ["eval", "--checkpoint={run}"],
    "eval of its checkpoints": ["eval", "--checkpoint={run}/checkpoints"],
    "generate": ["generate", "--checkpoint={run}"],
    "score": ["data", "score", "--checkpoint={run}", "--output_dir={here}/out"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Returns the working directory, with a module that makes a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv(gin_imports.VARIABLE, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", "cpu"))
    (tmp_path / "own_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nx = 1\n")
    (tmp_path / "include.gin").write_text("import own_evil\n")
    (tmp_path / "nested.gin").write_text(f"include '{tmp_path}/include.gin'\n")
    yield tmp_path
    sys.modules.pop("own_evil", None)


def refuse(capsys, here, argv):
    """Runs a command and makes sure that it is refused with one line, and that nothing ran."""
    files = sorted(os.listdir(here))
    argv = [part.format(here=here, run=here / "run") for part in argv]
    assert cli.main(argv) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("moe-jax: "), captured.err
    assert captured.err.count("\n") == 1
    assert "refused" in captured.err or "os.system" in captured.err
    assert sorted(os.listdir(here)) == files, "something ran"
    return captured.err


def evil(here, kind):
    """Returns the text of an evil gin file."""
    return EVIL[kind].format(here=here, mark=here / "ran") + "\n"


def write_run(here, text):
    """Makes the directory of a run whose configuration is a good one but for a text."""
    if not (here / "run").exists():
        (here / "run" / "checkpoints").mkdir(parents=True)
    experiments.load(ConfigSource(["runs/quickstart.gin"]))
    # Dynamic registration has to come first, and leaves no other names.
    good = "" if text.startswith("from __gin__") else config.operative()
    (here / "run" / "config.gin").write_text(good + text)


@pytest.mark.parametrize("kind", EVIL)
def test_config_check_runs_no_kind_of_evil_file(kind, here, capsys):
    (here / "evil.gin").write_text(evil(here, kind))
    line = refuse(capsys, here, ["config", "check", "--gin_file=evil.gin"])
    if kind in ("import", "import as"):
        assert "add --allow_imports=own_evil " in line


@pytest.mark.parametrize("kind", ["import", "dynamic"])
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_runs_an_evil_file(verb, kind, here, capsys):
    (here / "evil.gin").write_text(evil(here, kind))
    refuse(capsys, here, [*VERBS[verb], "--gin_file=evil.gin"])


@pytest.mark.parametrize("kind", EVIL)
def test_eval_runs_no_kind_of_evil_run(kind, here, capsys):
    write_run(here, evil(here, kind))
    line = refuse(capsys, here, OF_RUNS["eval"])
    if kind == "import":
        assert line.endswith("add --allow_imports=own_evil\n")


@pytest.mark.parametrize("kind", ["import", "dynamic"])
@pytest.mark.parametrize("verb", list(OF_RUNS)[1:])
def test_no_verb_runs_an_evil_run(verb, kind, here, capsys):
    write_run(here, evil(here, kind))
    refuse(capsys, here, OF_RUNS[verb])


def test_a_runs_place_on_a_network_is_refused(here, capsys):
    write_run(here, "Data.tfds_data_dir = 'gs://stranger/data'\n")
    line = refuse(capsys, here, OF_RUNS["generate"])
    assert "--gin.Data.tfds_data_dir=gs://stranger/data" in line


def test_status_and_plot_read_no_gin(here, capsys):
    write_run(here, evil(here, "import"))
    (here / "run" / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 1.0}\n')
    cli.main(["status", str(here / "run")])
    cli.main(["plot", str(here / "run"), f"--output={here}/out.png"])
    assert not (here / "ran").exists()


def test_the_flag_permits_it_for_one_command(here, capsys):
    """The control: the same file does run where the user asks for it, and then no more."""
    (here / "evil.gin").write_text("include 'runs/quickstart.gin'\nimport own_evil\n")
    command = ["config", "check", "--gin_file=evil.gin"]
    assert cli.main([*command, "--allow_imports=own_evil"]) == 0
    captured = capsys.readouterr()
    assert "ok  evil.gin" in captured.out
    assert captured.err == f"moe-jax: imported own_evil from {here / 'own_evil.py'}\n"
    assert (here / "ran").exists()
    (here / "ran").unlink()
    refuse(capsys, here, command)


def test_the_users_own_list_permits_it_in_files_and_not_in_runs(here, capsys, monkeypatch):
    monkeypatch.setenv(gin_imports.VARIABLE, "own_evil")
    (here / "evil.gin").write_text("include 'runs/quickstart.gin'\nimport own_evil\n")
    assert cli.main(["config", "check", "--gin_file=evil.gin"]) == 0
    capsys.readouterr()
    (here / "ran").unlink()
    write_run(here, "import own_evil\n")
    refuse(capsys, here, OF_RUNS["eval"])


def test_a_flag_that_names_no_module_is_refused(here, capsys):
    assert cli.main(["config", "check", "--allow_imports=evil.py"]) == 1
    assert "takes names of modules" in capsys.readouterr().err
