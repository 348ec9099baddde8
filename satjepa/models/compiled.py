"""`torch.compile` of the transformer: said when it happens, never silently left, eager where it
fails.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

Choice = Literal["auto", "on", "off"]
RECOMPILES = 64  # variants of one function; PyTorch stops at 8, and goes on eagerly without a word


def is_on(choice: Choice, device: torch.device) -> bool:
    """Whether a setting ``compile`` asks for it on a device: "auto" does on CUDA."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")


class Compiled:
    """A function of tensors, compiled with static shapes: once for each set of shapes it meets.

    function: a bound method of a module. title: for what is printed at the first call of a shape.
    blocks: modules to compile one by one, in place of the whole function: blocks of one kind share
    their code, so that the first call is short. options: of `torch.compile`.

    A call that fails at its first shape is one warning, and everything is eager from then on. An
    error of memory is raised: eager paths need more.
    """

    def __init__(
        self, function: Callable, title: str, blocks: Sequence[nn.Module] = (), **options: Any
    ) -> None:
        self.function = function
        self.title = title
        self.blocks = blocks
        self.options = {"dynamic": False, "fullgraph": True} | options
        self.seconds: dict[tuple, float] = {}  # shapes -> of the first call
        self.failed = False
        self._call: Callable | None = None

    def __deepcopy__(self, memo: dict) -> Compiled:
        """For a copy of the module: it compiles anew."""
        function = copy.deepcopy(self.function, memo)
        blocks = copy.deepcopy(self.blocks, memo)
        return Compiled(function, self.title, blocks, **self.options)

    def __call__(self, *args: Tensor, **named: Any) -> Any:
        """What the function returns."""
        if self.failed:
            return self.function(*args, **named)
        key = (torch.is_grad_enabled(), *((x.shape, x.dtype, x.device) for x in args))
        with _limits():
            if key in self.seconds:
                return self._compiled()(*args, **named)
            try:
                return self._first(key, *args, **named)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.stop()
                self.failed = True
                warn_slower(
                    f"{self.title} could not be compiled and goes on as it is, slower", error
                )
        return self.function(*args, **named)

    def stop(self) -> None:
        """Take the compiled blocks out again: the modules are as they were."""
        for block in self.blocks:
            block._compiled_call_impl = None
        self._call = None

    def _first(self, key: tuple, *args: Tensor, **named: Any) -> Any:
        shapes = ", ".join("x".join(map(str, x.shape)) for x in args)
        print(f"compiling {self.title} for {shapes}: once, it may take a minute", flush=True)
        began = time.perf_counter()
        with warnings.catch_warnings():  # PyTorch warns of what it does itself while it compiles
            warnings.simplefilter("ignore")
            out = self._compiled()(*args, **named)
        if args[0].is_cuda:
            torch.cuda.synchronize()
        self.seconds[key] = time.perf_counter() - began
        print(f"compiled in {self.seconds[key]:.0f} s", flush=True)
        return out

    def _compiled(self) -> Callable:
        if self._call is None and self.blocks:
            for block in self.blocks:
                block.compile(**self.options)
            self._call = self.function
        elif self._call is None:
            self._call = torch.compile(self.function, **self.options)
        if self.options.get("mode") == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return self._call


def warn_slower(what: str, error: Exception) -> None:
    """One RuntimeWarning, at the caller of who calls this: what goes on more slowly, and why."""
    reason = " ".join(str(error).split())[:300]
    warnings.warn(f"{what}: {type(error).__name__}: {reason}", RuntimeWarning, stacklevel=3)


def _limits() -> Any:
    """PyTorch's limits while a compiled function is called: enough variants, and an error past
    them.
    """
    return torch._dynamo.config.patch(recompile_limit=RECOMPILES, fail_on_recompile_limit_hit=True)
