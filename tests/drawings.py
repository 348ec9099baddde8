"""Land drawn by hand, of which the captions by rule are known."""

import torch

from satjepa.evaluation.steering import of_quarter

SIDE = 64
# of forest, of a green field, of a field of rape
COLOURS = {"forest": (0.10, 0.18, 0.11), "green crops": (0.26, 0.47, 0.20),
           "yellow crops": (0.72, 0.68, 0.22)}  # fmt: skip


def drawn(**quarters: str) -> torch.Tensor:
    """Forest, but for some quarters: (3,H,W)."""
    image = torch.tensor(COLOURS["forest"])[:, None, None].repeat(1, SIDE, SIDE)
    for quarter, cover in quarters.items():
        of_quarter(image, quarter)[:] = torch.tensor(COLOURS[cover])[:, None, None]
    return image
