"""The three losses of the joint objective. Each returns (loss, dict of its named, unweighted,
detached parts).

    L = ijepa * L_IJEPA + sd * L_flow + caption * L_caption
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from satjepa.models.layers import layer_norm0

Loss = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class IJepaWeights:
    """Weights of the parts of `ijepa_loss`; the defaults are the published ones.

    Any object with these attributes will do, such as the ``loss`` section of params.yaml.
    """

    l1: float = 20.0
    cosine: float = 2.0
    contrastive: float = 0.5
    spatial: float = 2.0
    feature: float = 5.0
    temperature: float = 0.1


@dataclass(frozen=True)
class CaptionWeights:
    """Weights of the parts of `caption_loss`; the defaults of the first four are the published
    ones.
    """

    mse: float = 1.0
    cosine: float = 0.5
    contrastive: float = 0.1
    temperature: float = 0.07
    pooled: float = 0.5
    silence: float = 1.0


def ijepa_loss(
    pred: Tensor,
    target: Tensor,
    pred_feat: Tensor | None = None,
    target_feat: Tensor | None = None,
    weight: Tensor | None = None,
    weight_feat: Tensor | None = None,
    weights: IJepaWeights = IJepaWeights(),
    spatial: str = "scalar",
) -> Loss:
    """I-JEPA loss: predicted against observed tokens of t+1.

    pred, target (B,N,C): projected tokens and AlphaEarth patch means; pred_feat, target_feat
    (B,M,R): tokens and features of the target encoder (compared after layer norm); weight (B,N),
    weight_feat (B,M) >= 0: how much of each is valid, None = all ones. What has weight 0 enters
    nothing, a sample without anything valid no contrastive part.

        l1          = mean |p - y|
        cosine      = 1 - mean cos(p, y)
        feature     = mean |LN p_feat - LN y_feat|
        spatial     = (s(p) - s(y))^2, s = standard deviation over the tokens; "scalar": s averaged
                      over batch and channels first (published: opposite errors cancel); "channel":
                      compared per sample and channel, then averaged
        contrastive = cross-entropy of cos(mean_i p, mean_j y) / temperature against the diagonal,
                      0 if B = 1
    """
    weight = pred.new_ones(pred.shape[:2]) if weight is None else weight
    deviation_p = _deviation(pred, weight)
    deviation_y = _deviation(target, weight)
    present = weight.sum(1) > 0
    if spatial == "scalar":
        spread = (_mean(deviation_p, present) - _mean(deviation_y, present)).square()
    else:
        spread = _mean((deviation_p - deviation_y).square(), present)
    similarity = _mean(F.cosine_similarity(pred, target, dim=-1, eps=1e-6)[..., None], weight)
    parts = {
        "l1": _mean((pred - target).abs(), weight),
        "cosine": 1 - similarity,
        "contrastive": _contrastive(
            _pool(pred, weight), _pool(target, weight), present, weights.temperature
        ),
        "spatial": spread,
        "feature": pred.new_zeros(()),
    }
    if pred_feat is not None:
        weight_feat = (
            pred_feat.new_ones(pred_feat.shape[:2]) if weight_feat is None else weight_feat
        )
        parts["feature"] = _mean(
            (layer_norm0(pred_feat) - layer_norm0(target_feat)).abs(), weight_feat
        )
    loss = sum(getattr(weights, name) * part for name, part in parts.items())
    return loss, {name: part.detach() for name, part in parts.items()}


def caption_loss(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    pooled: tuple[Tensor, Tensor] | None = None,
    weights: CaptionWeights = CaptionWeights(),
) -> Loss:
    """Forecast against observed caption of t+1.

    pred, target (B,L,T): T5 states; mask (B,L) bool: words of the observed caption, None = all.
    m = mean over words.

        mse         = mean (p - y)^2
        cosine      = 1 - mean cos(m_p, m_y)
        contrastive as in `ijepa_loss`, of m_p, m_y
        pooled      = mean |q_p - q_y|^2 / |q_y|^2, where ``pooled`` = forecast and observed CLIP
                      vectors (B,P) are given
        silence     = mean p^2 past the end of the observed caption: there the backbone is used to
                      zeros

    ``target`` past its mask enters nothing. Masks, ``pooled`` and ``silence`` are ours, not in the
    published loss.
    """
    weight = pred.new_ones(pred.shape[:2]) if mask is None else mask.to(pred.dtype)
    m_pred = _pool(pred, weight)
    m_target = _pool(target, weight)
    parts = {
        "mse": _mean((pred - target).square(), weight),
        "cosine": 1 - F.cosine_similarity(m_pred, m_target, dim=-1, eps=1e-6).mean(),
        "contrastive": _contrastive(m_pred, m_target, weight.sum(1) > 0, weights.temperature),
        "silence": _mean(pred.square(), 1 - weight),
    }
    if pooled is not None:
        error = (pooled[0] - pooled[1]).square().sum(-1)
        parts["pooled"] = (error / pooled[1].square().sum(-1).clamp_min(1e-6)).mean()
    loss = sum(getattr(weights, name) * part for name, part in parts.items())
    return loss, {name: part.detach() for name, part in parts.items()}


def flow_loss(velocity: Tensor, target: Tensor) -> Loss:
    """Flow matching: mean (v - v*)^2 over latents (B,C,h,w), as ``mse`` and per sample as ``each``
    (B,).

    Masked by nothing: a latent pixel sees its neighbours.
    """
    each = (velocity - target).square().flatten(1).mean(1)  # (B,)
    return each.mean(), {"mse": each.mean().detach(), "each": each.detach()}


def joint_loss(losses: dict[str, tuple[float, Loss]]) -> Loss:
    """Weighted sum of some losses, name -> (scale, (loss, parts)); parts are named "<name>.<part>",
    the sum "loss".
    """
    loss = sum(scale * value for scale, (value, _) in losses.values())
    parts = {
        f"{name}.{part}": value
        for name, (_, (_, named)) in losses.items()
        for part, value in named.items()
    }
    return loss, {"loss": loss.detach(), **parts}


def _mean(error: Tensor, weight: Tensor) -> Tensor:
    """Mean over the last axis, then weighted mean over the rest: (..., C), (...) -> scalar; 0 if
    nothing weighs.
    """
    return (error.mean(-1) * weight).sum() / weight.sum().clamp_min(1e-6)


def _pool(tokens: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the tokens: (B,N,C), (B,N) -> (B,C)."""
    return torch.einsum("bnc,bn->bc", tokens, weight) / weight.sum(1, keepdim=True).clamp_min(1e-6)


def _deviation(tokens: Tensor, weight: Tensor) -> Tensor:
    """Deviation over the tokens, sqrt(var + 1e-6): (B,N,C), (B,N) -> (B,C); n-1 variance where all
    weights are 1.
    """
    total = weight.sum(1, keepdim=True)
    freedom = total - weight.square().sum(1, keepdim=True) / total.clamp_min(1e-6)
    centred = tokens - _pool(tokens, weight)[:, None]
    variance = torch.einsum("bnc,bn->bc", centred.square(), weight) / freedom.clamp_min(1e-6)
    return (variance + 1e-6).sqrt()


def _contrastive(pred: Tensor, target: Tensor, present: Tensor, temperature: float) -> Tensor:
    """InfoNCE of B pooled vectors against B others, (B,C) each; rows that are not ``present`` (B,)
    take no part.
    """
    pred = F.normalize(pred, dim=-1)
    target = F.normalize(target, dim=-1)
    own = torch.eye(len(pred), dtype=torch.bool, device=pred.device)
    scores = pred @ target.T / temperature  # (B,B)
    scores = scores.masked_fill(
        ~(present[None] | own), -torch.inf
    )  # no row is without a finite one
    each = -F.log_softmax(scores, dim=-1).diagonal()  # (B,)
    count = present.sum()
    total = torch.where(present, each, 0).sum() / count.clamp_min(1)
    return torch.where(count > 1, total, 0 * total)
