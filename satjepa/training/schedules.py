"""Learning rate, weight decay and EMA momentum as plain functions of the step: those of I-JEPA and
of the baselines.
"""

import math


def cosine(step: float, total: float, start: float, final: float) -> float:
    """Half a cosine from ``start`` (step 0) to ``final`` (step ``total`` and after)."""
    share = min(step / total, 1.0)
    return final + (start - final) / 2 * (1 + math.cos(math.pi * share))


def warmup_cosine(
    step: float, total: float, warmup: float, start: float, peak: float, final: float
) -> float:
    """Line from ``start`` to ``peak`` over ``warmup`` steps, then half a cosine to ``final`` at
    ``total``.
    """
    if step < warmup:
        return start + step / warmup * (peak - start)
    return cosine(step - warmup, total - warmup, peak, final)


def linear(step: float, total: float, start: float, final: float) -> float:
    """Line from ``start`` (step 0) to ``final`` (step ``total`` and after): the momentum of the
    target encoder.
    """
    return start + min(step / total, 1.0) * (final - start)


def one_cycle(step: int, total: int, peak: float) -> tuple[float, float]:
    """OneCycle (Smith and Topin 2017): learning rate and Adam's beta1 of each of `total` steps,
    counted from 0.

    Half a cosine from peak / 25 up to `peak`, beta1 0.95 down to 0.85, reached a step before 30% of
    the steps; then half a cosine down to peak / 250000, and beta1 back up, reached in the last
    step. As torch's `OneCycleLR`.
    """
    top = 0.3 * total - 1
    last = total - 1
    if step <= top:
        return cosine(step, top, peak / 25, peak), cosine(step, top, 0.95, 0.85)
    return cosine(step - top, last - top, peak, peak / 250_000), cosine(
        step - top, last - top, 0.85, 0.95
    )


def warmup_constant(step: int, warmup: int, peak: float) -> float:
    """Line from 0 (step 0) to `peak` over `warmup` steps, then `peak`: MCVD's learning rate."""
    return peak * min(step / warmup, 1.0) if warmup else peak
