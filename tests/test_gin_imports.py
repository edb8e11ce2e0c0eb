"""A gin file runs no code: what it imports and names is checked before any of it happens."""

import importlib
import sys

import gin
import pytest

from moe_jax import config, experiments, gin_imports
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError

QUICKSTART = ["runs/quickstart.gin"]
DYNAMIC = "from __gin__ import dynamic_registration\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Returns the working directory, in which modules can be written; forgets them afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv(gin_imports.VARIABLE, raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def write(path, text):
    """Writes a file, with its directory, and returns its path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def marking(mark, more=""):
    """Returns a module that makes a file when it is imported."""
    return f"open({str(mark)!r}, 'w').close()\n{more}"


def refusal(file, *more, **arguments):
    """Returns the one line with which a file is refused."""
    with pytest.raises(UserError) as error:
        experiments.load(ConfigSource([*QUICKSTART, *more, str(file)], [], **arguments))
    assert "\n" not in str(error.value)
    return str(error.value)


IMPORTS = ["import own_evil", "import own_evil as x", "from own_evil import y", "import own_evil.y"]


@pytest.mark.parametrize("line", IMPORTS)
def test_an_import_is_refused_with_the_flag_that_permits_it(here, line):
    write(here / "own_evil.py", marking(here / "ran"))
    message = refusal(write(here / "evil.gin", f"{line}\n"))
    module = "own_evil" if line in IMPORTS[:2] else "own_evil.y"
    assert f"{line!r} was refused ({here / 'evil.gin'}, line 1)" in message
    assert f"add --allow_imports={module} " in message
    assert not (here / "ran").exists()


def test_all_that_is_refused_is_in_one_flag(here):
    file = write(here / "evil.gin", "import os\nimport subprocess\nimport os\n")
    message = refusal(file)
    assert "'import os' and 2 more were refused" in message
    assert "add --allow_imports=os,subprocess " in message


@pytest.mark.parametrize(
    "text",
    [
        DYNAMIC,
        "from __gin__ import anything\n",
        "import __gin__.dynamic_registration\n",
        f"{DYNAMIC}import os\nTrain.steps = @os.getpid()\n",
    ],
)
def test_dynamic_registration_is_refused_whatever_is_permitted(here, text, monkeypatch):
    monkeypatch.setenv(gin_imports.VARIABLE, "os")
    with gin_imports.allowing(["os", "gin"]):
        assert "can call any function there is" in refusal(write(here / "evil.gin", text))
    for name in ("__gin__", "__gin__.dynamic_registration"):
        with pytest.raises(UserError, match="dynamic registration"), gin_imports.allowing([name]):
            pass


def test_nothing_is_imported_unless_everything_may_be(here):
    write(here / "own_good.py", marking(here / "ran"))
    file = write(here / "evil.gin", "import own_good\nimport os\n")
    with gin_imports.allowing(["own_good"]):
        assert "--allow_imports=os " in refusal(file)
    assert not (here / "ran").exists()


def test_includes_are_followed(here):
    write(here / "own_evil.py", marking(here / "ran"))
    write(here / "inner.gin", "import own_evil\n")
    write(here / "sub" / "middle.gin", f"include '{here}/inner.gin'\n")
    outer = write(here / "outer.gin", "include 'sub/middle.gin'\n")
    assert f"was refused ({here}/inner.gin, line 1)" in refusal(outer)
    found = write(here / "by_search_path.gin", "include 'middle.gin'\n")
    assert "was refused" in refusal(found, search_paths=[str(here / "sub")])
    assert not (here / "ran").exists()


NAMES = [
    "Train.steps = @os.system()",
    "Train.steps = @scope/os.system()",
    "Train.steps = @a/b/os.system",
    "Train.steps = [{'x': (@os.system(),)}]",
    "EVIL = @os.system()\nTrain.steps = %EVIL",
    "os.system.command = 'touch ran'",
    "scope/os.system.command = 'touch ran'",
    "os.system:\n  command = 'touch ran'",
    "import os\nTrain.steps = @os.system()",
]


@pytest.mark.parametrize("text", NAMES)
def test_names_reach_no_function_that_is_not_registered(here, text):
    message = refusal(write(here / "evil.gin", f"{text}\n"))
    assert "system" in message or "import os" in message
    assert not (here / "ran").exists()


def test_what_other_code_has_registered_cannot_be_reached(here):
    """A library that happens to be in the process, and registers its functions, opens nothing."""
    write(here / "own_lib.py", "def own_touch(path):\n  open(path, 'w').close()\n  return 3\n")
    sys.path.insert(0, str(here))
    library = importlib.import_module("own_lib")
    gin.clear_config()
    gin.external_configurable(library.own_touch, module="own_lib")
    for text in (
        f"own_lib.own_touch.path = '{here}/ran'\nTrain.steps = @own_lib.own_touch()",
        f"X = @s/own_touch()\nTrain.steps = %X\ns/own_touch.path = '{here}/ran'",
    ):
        file = write(here / "evil.gin", text)
        assert "own_lib registers it" in refusal(file)
        assert not (here / "ran").exists()
        with gin_imports.allowing(["own_lib"]):
            assert experiments.load(ConfigSource([*QUICKSTART, file])).train.steps == 3
        (here / "ran").unlink()


def test_bindings_are_checked_like_files(here):
    for line in ("import os\nX=1", f"{DYNAMIC}X=1", "include 'evil.gin'\nX=1"):
        write(here / "evil.gin", "import os\n")
        with pytest.raises(UserError, match="was refused"):
            experiments.load(ConfigSource(QUICKSTART, [line]))
    with pytest.raises(UserError, match=r"nothing is called @os\.system"):
        experiments.load(ConfigSource(QUICKSTART, ["Train.steps=@os.system()"]))


@pytest.mark.parametrize("name", ["moe_jax.cli", "moe_jax.commands.seqio_tasks", "moe_jax_evil"])
def test_modules_that_are_the_packages_only_by_name_or_act_are_refused(here, name):
    assert "was refused" in refusal(write(here / "evil.gin", f"import {name}\n"))


def test_the_packages_own_modules_may_be_imported(here):
    file = write(here / "fine.gin", "import moe_jax.training.loop\nTrain.steps = 7\n")
    assert experiments.load(ConfigSource([*QUICKSTART, file])).train.steps == 7


ROUTER = """
import dataclasses, gin
from moe_jax.routers.expert_choice import ExpertChoice

@gin.register(module="own_router")
def MyRouter(factor=1.0):
    return ExpertChoice(capacity_factor=factor)
"""
USES_ROUTER = "import own_router\nExperiment.router = @MyRouter()\nMyRouter.factor = 1.5\n"


@pytest.fixture
def no_router():
    """Forgets what own_router registered."""
    yield
    gin.clear_config()
    if "own_router.MyRouter" in gin.config._REGISTRY:
        gin.config._REGISTRY.pop("own_router.MyRouter")


@pytest.mark.parametrize("how", ["flag", "environment"])
@pytest.mark.parametrize("where", ["beside the file", "working directory"])
def test_a_permitted_module_is_found_and_said(here, where, how, monkeypatch, capsys, no_router):
    directory = here / "elsewhere" if where == "beside the file" else here
    module = write(directory / "own_router.py", ROUTER)
    file = write(here / "elsewhere" / "my.gin", USES_ROUTER)
    names = [] if how == "environment" else ["own_tasks,own_router"]
    if how == "environment":
        monkeypatch.setenv(gin_imports.VARIABLE, "own_tasks, own_router")
    with gin_imports.allowing(names):
        assert experiments.load(ConfigSource([*QUICKSTART, file])).router.capacity_factor == 1.5
        assert capsys.readouterr().err == f"moe-jax: imported own_router from {module}\n"
        # The second time, it is there already.
        assert experiments.load(ConfigSource([*QUICKSTART, file])).router.capacity_factor == 1.5
        assert capsys.readouterr().err == ""
    if how == "environment":
        monkeypatch.delenv(gin_imports.VARIABLE)
    assert "--allow_imports=own_router " in refusal(file)


def test_the_file_written_for_a_run_holds_the_import_and_needs_the_flag(
    here, monkeypatch, no_router
):
    write(here / "own_router.py", ROUTER)
    file = write(here / "my.gin", USES_ROUTER)
    with gin_imports.allowing(["own_router"]):
        experiments.load(ConfigSource([*QUICKSTART, file]))
        own = write(here / "run" / "config.gin", config.operative())
        assert "import own_router" in config.operative()
        assert experiments.load(ConfigSource([own], run_config=own)).router.capacity_factor == 1.5
    # The user's own list is for the user's own files.
    monkeypatch.setenv(gin_imports.VARIABLE, "own_router")
    with pytest.raises(UserError) as error:
        experiments.load(ConfigSource([own], run_config=own))
    assert str(error.value).endswith("add --allow_imports=own_router")


def test_code_in_a_run_directory_is_not_found(here, monkeypatch):
    write(here / "run" / "own_evil.py", marking(here / "ran"))
    own = write(here / "run" / "config.gin", "import own_evil\n")
    with gin_imports.allowing(["own_evil"]), pytest.raises(UserError, match="no module own_evil"):
        experiments.load(ConfigSource([own], run_config=own))
    assert not (here / "ran").exists()


@pytest.mark.parametrize("name", ["json", "colorsys", "jax", "rich"])
def test_no_file_takes_the_place_of_an_installed_module(here, name, monkeypatch):
    """`colorsys` is of Python's library, and nothing has imported it yet."""
    write(here / "beside" / f"{name}.py", marking(here / "ran"))
    write(here / f"{name}.py", marking(here / "ran"))
    file = write(here / "beside" / "my.gin", f"import {name}\n")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with gin_imports.allowing([name]):
        assert experiments.load(ConfigSource([*QUICKSTART, file])).train.steps
    assert not (here / "ran").exists()


def test_only_the_place_of_a_permitted_module_is_searched(here):
    """What lies beside a gin file is no more importable for the module being found elsewhere."""
    write(here / "own_tasks.py", "try:\n  import own_optional\nexcept ImportError:\n  pass\n")
    write(here / "beside" / "own_optional.py", marking(here / "ran"))
    file = write(here / "beside" / "my.gin", "import own_tasks\n")
    with gin_imports.allowing(["own_tasks"]):
        experiments.load(ConfigSource([*QUICKSTART, file]))
    assert not (here / "ran").exists()


def test_packages_and_their_modules(here, capsys):
    write(here / "own_package" / "inner.py", "X = 1\n")
    file = write(here / "my.gin", "from own_package import inner\n")
    assert "--allow_imports=own_package.inner " in refusal(file)
    with gin_imports.allowing(["own_package"]):
        experiments.load(ConfigSource([*QUICKSTART, file]))
    assert f"from {here / 'own_package' / 'inner.py'}" in capsys.readouterr().err


def test_modules_that_cannot_be_imported_are_one_line(here):
    write(here / "own_broken.py", "import own_missing\n")
    write(here / "own_faulty.py", "1 / 0\n")
    file = write(here / "my.gin", "import own_broken\n")
    with gin_imports.allowing(["own_broken", "own_faulty", "own_absent"]):
        assert "own_broken cannot be imported" in refusal(file)
        assert "division by zero" in refusal(write(here / "my.gin", "import own_faulty\n"))
        message = refusal(write(here / "my.gin", "import own_absent\n"))
    assert f"no module own_absent ({here / 'my.gin'}, line 1); looked in {here}" in message


@pytest.mark.parametrize("name", ["my_tasks.py", "./my_tasks", "a b", "1x", "a..b"])
def test_flags_that_name_no_module_are_refused(name, monkeypatch):
    with (
        pytest.raises(UserError, match="takes names of modules, such as my_tasks"),
        gin_imports.allowing([name]),
    ):
        pass
    monkeypatch.setenv(gin_imports.VARIABLE, name)
    with pytest.raises(UserError, match=gin_imports.VARIABLE):
        gin_imports.permitted()


def test_a_process_of_our_own_gets_the_permissions(monkeypatch):
    monkeypatch.setenv(gin_imports.VARIABLE, "b")
    with gin_imports.allowing(["a"]):
        variables = gin_imports.as_environment()
    assert variables == {gin_imports.VARIABLE: "a,b"}
    assert gin_imports.permitted() == ["b"]
    assert gin_imports.permitted(of_a_run=True) == []
