"""A writer that fails does not stop training."""

from moe_jax.training.metric_writers.multi_writer import MultiWriter


class Failing:
    """A writer that fails at given steps, and records its calls."""

    def __init__(self, name, failing):
        self.name, self.failing, self.calls = name, set(failing), []

    def write(self, step, kind, metrics):
        self.calls.append((step, kind, {name: value.tolist() for name, value in metrics.items()}))
        if step in self.failing:
            raise RuntimeError(f"no {step}")

    def write_text(self, name, text):
        raise RuntimeError("no texts")

    def close(self):
        self.calls.append("close")


def test_a_failing_writer_is_warned_of_once_and_rests(directory):
    now, warnings = [0.0], []
    bad, good = Failing("bad", {1, 2, 5}), Failing("good", set())
    writers = MultiWriter([bad, good], warnings.append, clock=lambda: now[0])
    for step, seconds in ((1, 0), (2, 59), (3, 2), (4, 0), (5, 0)):
        now[0] += seconds
        writers.write(step, "train", {"loss": 0.5})
    writers.close()
    # Step 2 comes within the minute of rest; 5 fails once more, without another warning.
    assert [call[0] for call in bad.calls] == [1, 3, 4, 5, "c"]
    assert bad.calls[0] == (1, "train", {"loss": 0.5})
    assert [call[0] for call in good.calls] == [1, 2, 3, 4, 5, "c"]
    assert warnings == ["bad fails, training goes on: no 1"]
