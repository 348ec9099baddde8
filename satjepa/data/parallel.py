"""Work side by side on the cores of the machine."""

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST = 4  # threads, as each holds the region that it works on


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """`map(work, items)`, one thread for each core up to `MOST`: for NumPy, GDAL and Zarr, which
    let other threads run.

    Results come in the order of the items. The first error is raised in its place, and what has not
    begun is dropped, as it is where the generator is closed: close it where something else than an
    error in `work` may end its use.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST)) as pool:
        yield from pool.map(work, items)
