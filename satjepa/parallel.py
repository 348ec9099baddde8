"""Work side by side on the cores of the machine."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(work, items)`, one thread for each core: for NumPy, GDAL and Zarr, which let other threads run meanwhile.

    Results come in the order of the items. The first error is raised in its place, and what has not begun is dropped.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(work, items)
