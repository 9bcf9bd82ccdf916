"""The garbage collector while a process is started."""

import gc

import pytest

from app.core import collector


def test_nothing_is_collected_while_everything_is_imported() -> None:
    collections: list[str] = []
    gc.callbacks.append(lambda phase, _: collections.append(phase))
    try:
        with collector.at_rest():
            stays = [[each] for each in range(100_000)]
            before = gc.get_freeze_count()
            assert collections == []
    finally:
        gc.callbacks.pop()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before + len(stays) - 1


def test_the_collector_works_again_after_a_start_that_failed() -> None:
    with pytest.raises(RuntimeError), collector.at_rest():
        raise RuntimeError
    assert gc.isenabled()
