"""The writer of each process."""

from moe_jax.training.metric_writers import make_writer as make_writer_module
from moe_jax.training.metric_writers.make_writer import make_writer


def test_only_the_first_process_writes(directory, monkeypatch):
    monkeypatch.setattr(make_writer_module, "is_main", lambda: False)
    writer = make_writer(directory, 0)
    writer.write(1, "train", {"loss": 1.0})
    writer.write_text("config", "")
    writer.close()
    assert list(directory.iterdir()) == []
