"""What the notebooks say beside a forecast."""

from types import SimpleNamespace

import pytest

from satjepa.figures.gallery import who_sees_it


@pytest.mark.parametrize(
    "strength, coarse, said",
    [(1.0, 0, "not seen by the generator"), (0.35, 0, "starts from it"), (0.35, 32,
    "starts from it"),
     (1.0, 32, "sees it, 32 x 32 px")],
)  # fmt: skip
def test_a_grid_says_what_the_generator_is_shown(strength: float, coarse: int, said: str) -> None:
    """`strength` is what the model says: the published one is 0.35 where its settings say 1."""
    params = SimpleNamespace(model=SimpleNamespace(coarse_rgb=coarse))
    assert (
        who_sees_it(SimpleNamespace(strength=strength, params=params))
        .replace("\n", " ")
        .endswith(said)
    )
