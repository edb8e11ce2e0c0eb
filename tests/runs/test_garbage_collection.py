"""The search for garbage is put off while a process starts, and then goes on."""

import gc
import weakref

from moe_jax.runs import garbage_collection


class Cycle:
    def __init__(self):
        self.me = self


def test_what_is_made_meanwhile_is_kept_and_what_comes_later_is_found():
    garbage_collection.defer()
    try:
        assert not gc.isenabled()
        early = weakref.ref(Cycle())
        garbage_collection.resume()
        assert gc.isenabled()
        late = weakref.ref(Cycle())
        gc.collect()
        assert early() is not None
        assert late() is None
    finally:
        gc.unfreeze()
        gc.enable()
    gc.collect()
    assert early() is None


def test_what_is_garbage_by_then_is_found_if_asked_for():
    garbage_collection.defer()
    try:
        early = weakref.ref(Cycle())
        garbage_collection.resume(collect=True)
        assert early() is None
    finally:
        gc.unfreeze()
        gc.enable()


def test_without_a_start_nothing_is_kept():
    frozen = gc.get_freeze_count()
    garbage_collection.resume()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
