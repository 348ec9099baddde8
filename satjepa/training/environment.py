"""What accelerate takes from the environment: nothing that changes training behind the back of
params.yaml.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

PREFIX = "ACCELERATE_"
MIXED_PRECISION = {"float32": "no", "bf16": "bf16"}  # train.precision -> accelerate's word
# Where it runs and what it logs; what is computed stays the same.
HARMLESS = {
    "USE_CPU", "TORCH_DEVICE", "CPU_AFFINITY", "NUM_PROCESSES", "LOG_LEVEL", "DEBUG_MODE",
    "DEBUG_RDV_FILE", "ENABLE_RICH", "DYNAMO_MODE",
}  # fmt: skip
OFF = ("", "0", "f", "false", "n", "no", "none", "off")
ACCUMULATION = "GRADIENT_ACCUMULATION_STEPS"
CURES = {
    "MIXED_PRECISION": "train.precision of params.yaml decides",
    ACCUMULATION: "every step is one batch of train.batch of params.yaml",
    "GRADIENT_CLIPPING": "train.grad_clip of params.yaml decides",
    "DYNAMO_BACKEND": "params.yaml decides what is compiled",
}


class EnvironmentVariableError(ValueError):
    """A variable asks accelerate for something else than params.yaml."""


def make_accelerator(precision: str, handlers: list[Any]) -> Accelerator:
    """The Accelerator of a training run with `train.precision` ("float32" or "bf16").

    Raises EnvironmentVariableError where an ACCELERATE_ variable asks for something else: gradients
    divided by an accumulation that never happens, another precision, a compiler, DeepSpeed, FSDP.
    What `accelerate launch` sets by itself is fine.
    """
    from accelerate import Accelerator

    _require_plain_environment(precision)
    return Accelerator(mixed_precision=MIXED_PRECISION[precision], kwargs_handlers=handlers)


def _require_plain_environment(precision: str) -> None:
    for variable, value in sorted(os.environ.items()):
        name = variable.removeprefix(PREFIX)
        if not variable.startswith(PREFIX) or name in HARMLESS:
            continue
        accepted = _accepted(name, precision)
        if value.strip().lower() not in accepted:
            cure = CURES.get(name, "training here is in one process, or in several equal ones")
            raise EnvironmentVariableError(
                f"{variable} is {value!r} in the environment; accepted: unset or "
                f"{'1' if name == ACCUMULATION else 'no'}: {cure}. Run: unset {variable}"
            )


def _accepted(name: str, precision: str) -> tuple[str, ...]:
    if name == "MIXED_PRECISION":
        return (*OFF, MIXED_PRECISION[precision])  # accelerate launch says "no" to every script
    if name == ACCUMULATION:
        return ("", "1", "auto")
    return (*OFF, "auto")
