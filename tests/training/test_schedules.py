"""Learning rates of the baselines as functions of the step."""

import pytest
import torch

from satjepa.training.schedules import one_cycle, warmup_constant


@pytest.mark.parametrize("total", [10, 137, 1000])
def test_one_cycle_is_torchs(total: int):
    """Stepped per batch, so not stuck at its first rate, and exactly `total` steps long.

    OpenSTL's traps 113 and 117.
    """
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, total_steps=total, final_div_factor=1e4
    )
    for step in range(total):
        group = optimizer.param_groups[0]
        assert one_cycle(step, total, 1e-3) == pytest.approx(
            (group["lr"], group["betas"][0]), rel=1e-6
        )
        optimizer.step()
        if step < total - 1:
            schedule.step()


def test_one_cycle_at_its_marks():
    marks = {0: (4e-5, 0.95), 299: (1e-3, 0.85), 999: (4e-9, 0.95)}
    assert all(
        one_cycle(step, 1000, 1e-3) == pytest.approx(values) for step, values in marks.items()
    )


def test_warmup_starts_at_zero_and_stays_at_its_peak():
    assert [warmup_constant(step, 4, 0.2) for step in (0, 1, 3, 4, 99)] == pytest.approx(
        [0, 0.05, 0.15, 0.2, 0.2]
    )
    assert warmup_constant(0, 0, 0.2) == 0.2
