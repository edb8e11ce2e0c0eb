"""Files on a disk that is full."""


def fail_to_open(monkeypatch, directory, name):
    """Makes files whose path holds a name fail to open; returns the means to mend it."""
    cls, broken = type(directory), [True]
    opened = cls.open

    def open_(path, *args, **more):
        if broken[0] and name in str(path):
            raise OSError(28, "No space left on device")
        return opened(path, *args, **more)

    monkeypatch.setattr(cls, "open", open_)
    return lambda: broken.__setitem__(0, False)


class HalfFull:
    """A file that takes part of a line and then fails, in writing and in closing."""

    def __init__(self, path):
        self.path = path

    def write(self, text):
        with open(self.path, "a") as file:
            file.write(text[:10])

    def flush(self):
        raise OSError(28, "No space left on device")

    def close(self):
        raise OSError(28, "No space left on device")
