"""Work side by side: order, and what an error ends."""

import threading
import time

import pytest

from satjepa.data import parallel


@pytest.fixture(autouse=True)
def two_cores(monkeypatch) -> None:
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)


def test_two_at_a_time_in_order() -> None:
    """Each of a pair waits for the other, and the first of it is the last to end."""
    both = threading.Barrier(2)

    def work(item: int) -> int:
        both.wait(timeout=10)
        time.sleep(0.05 if item % 2 == 0 else 0)
        return 10 * item

    assert list(parallel.in_threads(work, range(6))) == [0, 10, 20, 30, 40, 50]


def test_an_error_drops_what_has_not_begun() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        if item == 1:
            raise ValueError("item 1")
        return item

    results = parallel.in_threads(work, range(500))
    assert next(results) == 0
    with pytest.raises(ValueError, match="item 1"):
        next(results)
    assert len(begun) < 100


def test_a_closed_one_begins_nothing_more() -> None:
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)

    results = parallel.in_threads(work, range(500))
    next(results)
    results.close()
    after = len(begun)
    time.sleep(0.1)
    assert len(begun) == after < 100
