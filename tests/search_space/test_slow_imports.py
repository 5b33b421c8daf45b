"""While slow libraries are imported, Python looks for no garbage; before and after it does."""

import gc
import weakref

import pytest

from search_space.slow_imports import slow_imports


def test_garbage_is_collected_again_after_imports_also_after_one_that_failed():
    with slow_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), slow_imports():
        import no_such_module  # noqa: F401
    assert gc.isenabled()


def test_what_was_imported_is_not_looked_through_again(monkeypatch, tmp_path):
    (tmp_path / 'a_thousand_lists.py').write_text('made = [[] for _ in range(1000)]\n')
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    with slow_imports():
        import a_thousand_lists
    assert gc.get_freeze_count() >= before + len(a_thousand_lists.made)


class Loop:
    def __init__(self):
        self.itself = self


def test_where_nothing_is_imported_garbage_is_still_found():
    with slow_imports():
        garbage = weakref.ref(Loop())
    gc.collect()
    assert garbage() is None
