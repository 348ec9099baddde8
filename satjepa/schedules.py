"""Learning rate, weight decay and EMA momentum as plain functions of the step (those of I-JEPA)."""

import math


def cosine(step: float, total: float, start: float, final: float) -> float:
    """Half a cosine from ``start`` (step 0) to ``final`` (step ``total`` and after)."""
    share = min(step / total, 1.0)
    return final + (start - final) / 2 * (1 + math.cos(math.pi * share))


def warmup_cosine(step: float, total: float, warmup: float, start: float, peak: float, final: float) -> float:
    """Line from ``start`` to ``peak`` over ``warmup`` steps, then half a cosine to ``final`` at ``total``."""
    if step < warmup:
        return start + step / warmup * (peak - start)
    return cosine(step - warmup, total - warmup, peak, final)


def linear(step: float, total: float, start: float, final: float) -> float:
    """Line from ``start`` (step 0) to ``final`` (step ``total`` and after): the momentum of the target encoder."""
    return start + min(step / total, 1.0) * (final - start)
