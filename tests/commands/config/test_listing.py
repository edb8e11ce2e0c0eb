"""`moe-jax config list`: gin files, and the names that they can use."""

import json

import gin

from moe_jax import cli

ROUTER = """
import gin
from moe_jax.routers.token_choice import TokenChoice

@gin.register
class ListedRouter(TokenChoice):
    '''A router of the user.

    It does nothing new.
    '''
"""


def listed(capsys, *argv):
    """Returns the exit code, the result, and what is printed and said."""
    code = cli.main(["config", "list", *argv, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]) if code == 0 else None, captured


def test_the_packages_files_and_names(capsys):
    code, result, captured = listed(capsys)
    assert code == 0
    assert "runs/quickstart.gin" in result["files"]
    names = {item["name"]: item for item in result["configurables"]}
    assert names["Model"]["module"] == "moe_jax.models.config"
    assert names["Study"]["module"] == "moe_jax.compare.study"
    assert "moe_jax.routers.token_choice" in captured.out


def test_names_of_an_imported_module(capsys, tmp_path):
    (tmp_path / "listed_router.py").write_text(ROUTER)
    (tmp_path / "my.gin").write_text("import listed_router\n")
    flag = f"--gin_file={tmp_path / 'my.gin'}"
    code, _, captured = listed(capsys, flag)
    assert code == 1
    assert "add --allow_imports=listed_router" in captured.err
    try:
        code, result, _ = listed(capsys, flag, "--allow_imports=listed_router")
    finally:
        gin.clear_config()
        gin.config._REGISTRY.pop("listed_router.ListedRouter")
    assert code == 0
    assert result["configurables"][-1] == {
        "name": "listed_router.ListedRouter",
        "kind": "class",
        "module": "listed_router",
        "summary": "A router of the user.",
    }
