"""The environment of accelerate: what asks for another training is refused by name."""

import os
from collections.abc import Iterator

import pytest

from satjepa.training.environment import EnvironmentVariableError, make_accelerator


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of accelerate's, and none of the state that it keeps for a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        monkeypatch.delenv(name)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("GRADIENT_ACCUMULATION_STEPS", "4", "train.batch"),
        ("GRADIENT_ACCUMULATION_STEPS", "0", "accepted: unset or 1:"),
        ("GRADIENT_CLIPPING", "0.5", "train.grad_clip"),
        ("MIXED_PRECISION", "bf16", "train.precision"),
        ("MIXED_PRECISION", "fp8", "train.precision"),
        ("DYNAMO_BACKEND", "inductor", "compiled"),
        ("USE_DEEPSPEED", "true", "accepted: unset or no:"),
        ("USE_FSDP", "1", "one process"),
        ("USE_MEGATRON_LM", "True", "one process"),
        ("USE_PARALLELISM_CONFIG", "yes", "one process"),
        ("FP8_BACKEND", "TE", "one process"),
        ("OF_SOME_LATER_VERSION", "7", "one process"),
    ],
)
def test_what_changes_training_is_refused(
    variable: str, value: str, word: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(f"ACCELERATE_{variable}", value)
    with pytest.raises(EnvironmentVariableError) as refused:
        make_accelerator("float32", [])
    message = str(refused.value)
    assert message.startswith(f"ACCELERATE_{variable} is '{value}' in the environment; accepted: ")
    assert message.endswith(f"Run: unset ACCELERATE_{variable}") and word in message


def test_what_accelerate_launch_sets_is_fine(monkeypatch: pytest.MonkeyPatch):
    """`accelerate launch` with its defaults, a debug flag and a device."""
    launched = {
        "MIXED_PRECISION": "no", "DYNAMO_BACKEND": "NO", "DYNAMO_MODE": "default",
        "DYNAMO_USE_FULLGRAPH": "False", "DYNAMO_USE_DYNAMIC": "False", "CPU_AFFINITY": "1",
        "DYNAMO_USE_REGIONAL_COMPILATION": "False", "USE_CPU": "True", "DEBUG_MODE": "true",
        "GRADIENT_ACCUMULATION_STEPS": "1",
    }  # fmt: skip
    for name, value in launched.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    accelerator = make_accelerator("bf16", [])
    assert accelerator.mixed_precision == "bf16"
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.device.type == "cpu"


@pytest.mark.parametrize(("precision", "word"), [("float32", "no"), ("bf16", "bf16")])
def test_precision_is_that_of_the_parameters(
    precision: str, word: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", word)
    assert make_accelerator(precision, []).mixed_precision == word
