"""Golden vectors as the tests of the published variant read them."""

import json

import pytest
import torch
from safetensors import safe_open


@pytest.fixture
def golden(shared):
    """golden(name) -> tensors, metadata of a file of golden vectors."""

    def golden(name):
        with safe_open(shared / "reference" / "golden" / f"{name}.safetensors", "pt") as f:
            meta = {key: json.loads(value) for key, value in f.metadata().items()}
            return {key: f.get_tensor(key) for key in f.keys()}, meta  # noqa: SIM118 - not a dict

    return golden


@pytest.fixture
def below():
    """below(tensors, prefix) -> those whose name starts with the prefix, without it."""
    return lambda g, prefix: {
        name.removeprefix(prefix): v for name, v in g.items() if name.startswith(prefix)
    }


@pytest.fixture
def close():
    """close(a, b, tolerance): assert |a - b| <= tolerance (1 + |b|)."""
    return lambda a, b, tol=1e-5: torch.testing.assert_close(
        a, b, atol=tol, rtol=tol, check_dtype=False
    )
