"""The share that one process has of work done by several, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """Process `rank` of `world`: its items are rank, rank + world, rank + 2 world, ...

    One process has it all, and then nothing is waited for or sent.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def mine(cls) -> Share:
        """The share of this process, joined to its group and bound to a GPU of its own."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    def of(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items of this process, in their order; the others are taken and dropped."""
        return islice(items, self.rank, None, self.world)

    def wait(self) -> None:
        """Go on when every process has come this far."""
        if self.world > 1:
            import torch.distributed

            torch.distributed.barrier()

    def gather(self, mine: list[Item]) -> list[Item]:
        """All items in their order, on every process, from what each made of its own (`of`)."""
        if self.world == 1:
            return mine
        import torch.distributed

        lists: list[list[Item]] = [[] for _ in range(self.world)]
        torch.distributed.all_gather_object(lists, mine)
        return interleave(lists)


def interleave(lists: Sequence[Sequence[Item]]) -> list[Item]:
    """The first of each list, the second of each, ...: the inverse of dealing them out by turns."""
    total = sum(map(len, lists))
    return [lists[i % len(lists)][i // len(lists)] for i in range(total)]
