"""Gin files as people have them: marks, circles, directories, other files; what was set where."""

import os

import pytest

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.gin_reader import GinReader

QUICKSTART = "include 'runs/quickstart.gin'\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with one gin file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.gin").write_text(QUICKSTART + "STEPS = 7\n")
    return tmp_path


def refusal(*files, bindings=()):
    with pytest.raises(UserError) as error:
        experiments.load(ConfigSource(list(files), list(bindings)))
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + QUICKSTART.encode() + b"STEPS = 7\n",
        QUICKSTART.replace("\n", "\r\n").encode() + b"STEPS = 7\r\n",
        QUICKSTART.encode() + b"STEPS = 7",
        b"\xef\xbb\xbfinclude 'good.gin'\r",
    ],
    ids=["byte-order mark", "windows", "no last line end", "old mac"],
)
def test_forms_of_a_text_that_are_read(here, data):
    (here / "my.gin").write_bytes(data)
    assert experiments.load(ConfigSource(["my.gin"])).train.steps == 7


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"STEPS = 3\n\0", "my.gin is not a gin file: its byte 10 is 0"),
        (b"\x89PNG\r\n\x1a\n\xff\xd8", "my.gin is not a gin file: its byte 0 is not UTF-8"),
        ("STEPS = 3\n".encode("utf-16"), "my.gin is not a gin file: its byte 0 is not UTF-8"),
        (b"include 'my.gin'\n", "my.gin includes itself (my.gin, line 1)"),
        (b"include './my.gin'\n", "my.gin includes itself (my.gin, line 1)"),
        (b"include 'sub'\n", "sub is a directory; a gin file was expected (my.gin, line 1)"),
        (b"include 'god.gin'\n", "there is no gin file 'god.gin', neither here"),
        (b"include ''\n", "the name of a gin file is empty (my.gin, line 1)"),
        (b"\nData.pack = [1,\n", "'Data.pack = [1,' (my.gin, line 2) is no line of gin"),
        (b"Data.pack = false\n", "'Data.pack = false' (my.gin, line 1) is no line of gin: false"),
        (
            b"Modle:\n    x = 1\n    y = 2\n",
            "nothing called 'Modle' can be configured (my.gin, line 1)",
        ),
        (b"hello\n", "'hello' (my.gin, line 1) is no line of gin"),
        (b"Train.steps = " + b"[" * 5000 + b"\n", "'Train.steps = [[[[[["),
        (b"#" * (5 << 20), "my.gin has 5,242,880 bytes, which is no gin file"),
        (b"include 'pipe'\n", "there is no gin file 'pipe', neither here"),
        (b"include '/dev/zero'\n", "there is no gin file '/dev/zero', neither here"),
        (b"Data.pack = @Nope()\n", "nothing is called @Nope (my.gin, line 1)."),
        (b"import moe_jax.nope\n", "No module named 'moe_jax.nope' (my.gin, line 1)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_read_is_one_line(here, data, line):
    (here / "sub").mkdir()
    os.mkfifo(here / "pipe")
    (here / "my.gin").write_bytes(data)
    lines = refusal("good.gin", "my.gin")
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_circles_are_named(here):
    for name, other in (("a", "b"), ("b", "sub/c"), ("sub/c", "./a")):
        (here / "sub").mkdir(exist_ok=True)
        (here / f"{name}.gin").write_text(f"include '{other}.gin'\n")
    assert refusal("a.gin") == [
        "a.gin includes in a circle: a.gin -> b.gin -> sub/c.gin -> ./a.gin (sub/c.gin, line 1)"
    ]
    # Twice is no circle.
    (here / "twice.gin").write_text("include 'good.gin'\ninclude 'good.gin'\n")
    assert experiments.load(ConfigSource(["twice.gin", "good.gin"])).train.steps == 7


@pytest.mark.parametrize(
    ("bindings", "line"),
    [
        (["STEPS=%STEPS"], "%STEPS -> %STEPS"),
        (["STEPS=%N", "N=%M", "M=%STEPS"], "%STEPS -> %N -> %M -> %STEPS"),
        (["Pool.kind=@Pool()"], "@Pool() -> @Pool()"),
    ],
)
def test_values_that_are_made_of_each_other_are_one_line(bindings, line):
    lines = refusal("runs/quickstart.gin", bindings=bindings)
    assert lines == [f"values are made of each other in a circle: {line}"]


def test_files_that_are_none(here, monkeypatch):
    (here / "sub").mkdir()
    assert refusal("sub") == ["sub is a directory; a gin file was expected"]
    assert refusal("") == ["the name of a gin file is empty"]
    assert refusal("nope.gin")[0].startswith("there is no gin file 'nope.gin', neither here")

    def denied(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("etils.epath.gpath.PosixGPath.open", denied)
    assert refusal("good.gin") == ["the gin file 'good.gin' cannot be read: Permission denied"]


def test_mistakes_of_all_kinds_are_told_at_once(here):
    (here / "my.gin").write_text(
        QUICKSTART
        + "Modle.num_layers = 2\n"
        + "Data.pack = 'false'\n"
        + "STEPS = 2.5\n"
        + "Train.accumulation = 5\n"
        + "Model:\n    num_layrs = 3\n    head_dim = 15\n    position = 'rotary'\n"
    )
    lines = refusal("my.gin", bindings=["Loss.z_loss=1e400", "Pool.rows=-1", "Guard"])
    expected = [
        "nothing called 'Modle' can be configured (my.gin, line 2). Did you mean 'Model'?",
        "Model has no parameter 'num_layrs' (my.gin, line 7). Did you mean 'num_layers'?",
        "--gin.Guard has no value; expected --gin.NAME=VALUE",
        "Data.pack must be True or False, not 'false' (my.gin, line 3)",
        "Train.steps must be a whole number above 0, not 2.5 (STEPS, my.gin, line 4)",
        "Model.position = 'rotary' needs an even Model.head_dim, not 15",
        "Loss.z_loss must be 0 or more and finite, not inf (in --gin.Loss.z_loss=1e400)",
        "Pool.rows must be a whole number, 0 (all) or more, not -1 (in --gin.Pool.rows=-1)",
    ]
    assert sorted(lines) == sorted(expected)


def test_what_a_broken_file_did_not_say_is_not_missed(here):
    """Of a file that ends too early, what it would have set is not called missing."""
    (here / "my.gin").write_text("include 'base.gin'\nData.shuffle = 0\nhello\n")
    broken, shuffle = refusal("my.gin")
    assert broken.startswith("'hello' (my.gin, line 3) is no line of gin")
    assert shuffle == "Data.shuffle must be True or False, not 0 (my.gin, line 2)"


def test_the_place_of_a_value_is_that_of_the_last_binding(here):
    lines = refusal("good.gin", bindings=["Data.pack=1", "Data.pack=2", "N=x", "Data.seed=%N"])
    assert lines == [
        "Data.seed must be a whole number from -2,147,483,648 to 4,294,967,295, not 'x' "
        "(N, in --gin.N=x)",
        "Data.pack must be True or False, not 2 (in --gin.Data.pack=2)",
    ]


def test_only_what_the_user_set_is_called_unused(here):
    (here / "mine.gin").write_text("include 'good.gin'\nHash.method = 'modulo'\n")
    (here / "good.gin").write_text(QUICKSTART + "Adaptive.threshold = 0.2\n")
    bindings = [
        "ExpertChoice.capacity_factor=1.5",
        "TokenChoice.k=1",
        "TokenChoice.normalise=False",
    ]
    experiments.load(ConfigSource(["mine.gin", "routers/topk.gin"], bindings))
    assert config.unused() == [
        "ExpertChoice.capacity_factor (in --gin.ExpertChoice.capacity_factor=1.5)",
        "Hash.method (mine.gin, line 2)",
    ]
    experiments.load(ConfigSource(["runs/quickstart.gin", "routers/topk.gin"]))
    assert config.unused() == []


def test_includes_that_multiply_are_ended(here):
    for number in range(20):
        (here / f"{number}.gin").write_text(f"include '{number + 1}.gin'\n" * 2)
    (here / "20.gin").write_text("A = 1\n")
    (line,) = refusal("0.gin")
    assert line.startswith("more than 1000 files are included (")


def test_texts_that_were_checked_are_what_is_read(here):
    """Not the files, whatever has become of them; and imports can be passed over."""
    reader = GinReader(
        ["", str(here)],
        lambda error, where: "",
        lambda name, where: "missing",
        texts={"good.gin": "import os_os\nmoe_jax.Data.seed = 4\n"},
        imports=False,
    )
    config.parse(ConfigSource())
    config.gin.config._set_config_is_locked(False)
    reader.read_file("good.gin")
    assert reader.mistakes == []
    assert config.gin.query_parameter("Data.seed") == 4
    # A file that was not read then is not there.
    (here / "later.gin").write_text("Data.seed = 5\n")
    reader.read_file("later.gin")
    assert [mistake.text for mistake in reader.mistakes] == ["missing"]


def test_the_configuration_of_a_run_is_a_base_that_others_override(here):
    """Its macros and settings may be unused, and its pool is not that of another router."""
    experiments.load(ConfigSource(["runs/quickstart.gin"], ["LR=0.5", "WarmupCosine.peak=%LR"]))
    (here / "saved.gin").write_text(config.operative())
    mine = ["Experiment.optimizer=@Adafactor()"]
    loaded = experiments.load(ConfigSource(["saved.gin", "routers/switch.gin"], mine))
    assert config.unused() == []
    assert loaded.router.pool.kind == "sequence"
    assert experiments.load(ConfigSource(["saved.gin"])).router.pool.kind == "batch"
    # A file of the user's with the same lines is not one that gin has written.
    (here / "mine.gin").write_text("include 'runs/quickstart.gin'\nLR = 0.5\n")
    with pytest.raises(UserError, match="nothing uses 'LR'"):
        experiments.load(ConfigSource(["mine.gin"]))
