"""Changes in the files of a run since it began."""

import copy
import hashlib
import json

import pytest
from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.errors import UserError
from moe_jax.training.run_directory import data_manifest
from moe_jax.training.run_directory.data_manifest import data_changes


def manifest(task="text:books", digest=None, **sums):
    """Returns the manifest of files with the given names and checksums."""
    files = [
        {"name": name, "size": 100 + len(value), "modified": 1.5, "sha256": value}
        for name, value in sums.items()
    ]
    return {task: {"digest": digest or str(list(sums.values())), "bytes": 1, "files": files}}


BEFORE = manifest(a="one", b="two", c="three")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (manifest(a="one", b="two", c="three"), None),
        # Moved with their contents, or touched.
        (manifest("text:other", x="one", y="two", z="three"), None),
        (manifest(a="one", b="tw0", c="three"), "changed b (103 bytes as before, with other"),
        (manifest(a="one", b="twenty", c="three"), "changed b (103 -> 106 bytes)"),
        (manifest(a="one", b="two", c="three", d="four"), "added d"),
        (manifest(a="one", b="two", c="three", d="one"), "added d"),
        (manifest(a="one", c="three"), "removed b"),
        (manifest(a="0", b="0", c="0"), "changed a "),
        (manifest(a="one", d="four", c="three"), "removed b; added d"),
        (manifest(c="one", a="two", b="three", digest="other"), "changed"),
        (manifest(x="two", y="one", z="three"), "in another order"),
        (manifest(b="two", c="three", a2="one"), "in another order"),
        (
            manifest(a="one", b="two", c="three", **{f"n{i}": str(i) for i in range(9)}),
            "added n0, n1, n2 and 6 more",
        ),
    ],
)
def test_changes_are_named(now, expected):
    changes = data_changes(BEFORE, now)
    if expected is None:
        assert changes is None
    else:
        assert expected in changes
        assert "\n" not in changes


def test_other_kinds_of_data_are_not_a_change_of_files():
    assert data_changes(None, BEFORE) is None
    assert data_changes({}, BEFORE) is None
    assert data_changes(BEFORE, {}) is None


def write_run(directory, config):
    facts = data_manifest.write_data_manifest(directory, config)
    (directory / "run.json").write_text(json.dumps({"data": facts}))


def test_a_run_is_refused_other_files_unless_they_are_meant(tmp_path, monkeypatch):
    directory, now = epath.Path(tmp_path), copy.deepcopy(BEFORE)
    monkeypatch.setattr(data_manifest, "data_manifest", lambda config: now)
    config = DataConfig("text:books")
    write_run(directory, config)
    assert data_manifest.check_data(directory, config) == ()
    now = manifest(a="one", b="two", c="three", d="four")
    with pytest.raises(UserError, match=r"added d\. .*Data.allow_changed_files = True") as error:
        data_manifest.check_data(directory, config)
    assert "\n" not in str(error.value)
    meant = DataConfig("text:books", allow_changed_files=True)
    (note,) = data_manifest.check_data(directory, meant)
    assert "added d; they are read from their start" in note
    # What is evaluated is said, of the same task alone.
    (note,) = data_manifest.evaluation_notes(directory, config)
    assert "added d: texts held out now may have been trained on" in note
    now = manifest("text:new", e="five")
    assert data_manifest.evaluation_notes(directory, config) == ()


def test_many_files_are_listed_beside_the_record(tmp_path, monkeypatch):
    directory = epath.Path(tmp_path)
    now = manifest(**{f"n{i:03}": str(i) for i in range(201)})
    monkeypatch.setattr(data_manifest, "data_manifest", lambda config: now)
    config = DataConfig("text:books")
    write_run(directory, config)
    kept = json.loads((directory / "run.json").read_text())["data"]["text:books"]
    assert kept["files"] == "201 files, listed in data_files.json"
    assert kept["digest"] == now["text:books"]["digest"]
    assert data_manifest.read_data_manifest(directory) == now
    # A list of other files is not taken for this run's.
    other = manifest(**{f"n{i:03}": str(i) for i in range(200)}, x="x")
    (directory / "data_files.json").write_text(json.dumps(other))
    assert data_manifest.read_data_manifest(directory) is None


@pytest.mark.parametrize("content", ["", "{}", '{"data": []}', '{"data": {"t": 1}}', "[1]"])
def test_a_record_of_another_program_is_no_record(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert not data_manifest.read_data_manifest(epath.Path(tmp_path))


def test_the_vocabulary_is_known_by_the_contents_of_its_file(tmp_path):
    (tmp_path / "v.model").write_bytes(b"pieces")
    (tmp_path / "copy.model").write_bytes(b"pieces")

    def digest(path):
        return data_manifest.vocabulary_digest(DataConfig(task="embedded", vocabulary=path))

    assert digest(str(tmp_path / "v.model")) == hashlib.sha256(b"pieces").hexdigest()
    assert digest(str(tmp_path / "copy.model")) == digest(str(tmp_path / "v.model"))
    assert digest(str(tmp_path / "none.model")) is None
    assert len(digest("embedded")) == 64
