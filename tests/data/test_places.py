"""The symmetries that windows are shown in: eight, each with an inverse, one for each place."""

import numpy as np
import pytest
import torch

from satjepa.data.places import augmentation, d4


def d4_inverse(array: np.ndarray | torch.Tensor, aug: int) -> np.ndarray | torch.Tensor:
    """Undo `d4` with the same `aug`."""
    lib = torch if isinstance(array, torch.Tensor) else np
    turned = lib.rot90(array, -aug % 4, (-2, -1))
    return lib.flip(turned, (-1,)) if aug >= 4 else turned


@pytest.mark.parametrize("aug", range(8))
def test_d4_and_its_inverse(aug) -> None:
    array = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    turned = d4(array, aug)
    np.testing.assert_array_equal(d4_inverse(turned, aug), array)
    np.testing.assert_array_equal(d4(torch.from_numpy(array), aug), turned)
    np.testing.assert_array_equal(d4_inverse(torch.from_numpy(turned.copy()), aug), array)


def test_d4_are_eight_different_symmetries() -> None:
    array = np.arange(9).reshape(3, 3)
    assert len({d4(array, aug).tobytes() for aug in range(8)}) == 8
    np.testing.assert_array_equal(d4(array, 0), array)
    assert d4(array, 1)[0].tolist() == [2, 5, 8] and d4(array, 4)[0].tolist() == [2, 1, 0]


def test_augmentation_is_fixed_and_spread() -> None:
    found = [
        augmentation(region, x, y)
        for region in "ABCD"
        for x in range(0, 320, 32)
        for y in range(0, 320, 32)
    ]
    assert np.bincount(found, minlength=8).min() > 30  # of 400; 50 expected
    assert [augmentation("Alpha", x, 0) for x in (0, 32, 64)] == [
        0,
        7,
        5,
    ]  # the same on every machine
