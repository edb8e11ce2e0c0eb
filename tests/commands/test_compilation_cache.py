"""Where compiled programs are kept, and that they do not grow without bound."""

import os
import stat

import jax
import pytest
from etils import epath

from moe_jax.cli import make_parser
from moe_jax.commands import compilation_cache


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """Takes JAX's settings away for a test, and the user's directories."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    before["jax_enable_compilation_cache"] = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_one_process_keeps_them_in_the_users_cache_directory(no_cache, tmp_path):
    place = compilation_cache.enable(None, output_dir=str(tmp_path / "runs" / "first"))
    kind = f"cpu-{compilation_cache.cpu_kind()}"
    assert place == epath.Path(tmp_path / "xdg" / "moe_jax" / "compiled" / kind)
    assert place.exists()
    assert jax.config.jax_compilation_cache_dir == str(place)
    # What is read from there is run: nobody else may write there.
    assert stat.S_IMODE(os.stat(place).st_mode) & 0o077 == 0


def test_several_processes_keep_them_beside_the_run(no_cache, tmp_path):
    output = str(tmp_path / "runs" / "first")
    place = compilation_cache.enable(None, output_dir=output, processes=4)
    assert place.parent == epath.Path(tmp_path / "runs" / ".compiled")


def test_several_processes_that_write_no_run_keep_nothing(no_cache):
    assert compilation_cache.enable(None, processes=4) is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_given_place_goes_before_all_others(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "of_the_environment"))
    given = str(tmp_path / "given")
    place = compilation_cache.enable(given, output_dir=str(tmp_path / "run"), processes=4)
    assert place.parent == epath.Path(given)


def test_the_environment_goes_before_the_users_directory(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert compilation_cache.enable(None) is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    assert not (tmp_path / "xdg").exists()


def test_a_place_that_cannot_be_made_is_named_and_done_without(no_cache, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    lines = []
    assert compilation_cache.enable(str(tmp_path / "file"), warn=lines.append) is None
    assert jax.config.jax_compilation_cache_dir is None
    (line,) = lines
    assert str(tmp_path / "file") in line
    assert "Not a directory" in line
    assert "--cache_dir" in line


def test_no_cache_compiles_anew_whatever_the_environment_says(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.disable()
    assert not jax.config.jax_enable_compilation_cache


def test_what_was_not_used_for_longest_is_deleted(tmp_path):
    for age in range(5):
        path = tmp_path / f"program_{age}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    # Written first of all, and read last.
    os.utime(tmp_path / "program_4-cache", (2e9, 1e9 - 4))
    compilation_cache.shrink(epath.Path(tmp_path), max_bytes=300)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["program_0-cache", "program_1-cache", "program_4-cache"]


def test_programs_of_another_kind_of_cpu_are_kept_apart(monkeypatch):
    import builtins
    import io

    real = builtins.open

    def with_flags(flags):
        def fake(path, *args, **kwargs):
            if path == "/proc/cpuinfo":
                return io.StringIO(f"processor\t: 0\nflags\t\t: {flags}\ncpu MHz\t: 2\n\n")
            return real(path, *args, **kwargs)

        return fake

    kinds = []
    for flags in ("sse avx2", "sse avx2 avx512f", "sse avx2"):
        monkeypatch.setattr(builtins, "open", with_flags(flags))
        kinds.append(compilation_cache.cpu_kind())
    assert kinds[0] == kinds[2] != kinds[1]


@pytest.mark.parametrize("verb", ["train --output_dir=x", "eval --checkpoint=x"])
def test_verbs_that_compile_a_model_have_the_flags(verb):
    args = make_parser().parse_args([*verb.split(), "--cache_dir=gs://bucket/compiled"])
    assert args.cache_dir == "gs://bucket/compiled"
    assert not args.no_cache
