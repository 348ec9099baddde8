"""What the published checkpoint `s2_future_jepa-best.pth.tar` must hold: every name and shape, for
given dimensions.

The functions below say it in the order of the file, as shapes and not as modules: a file is checked
before anything is built, and independently of our networks.
"""

from __future__ import annotations

import re
from statistics import mode

import torch

from satjepa.published.dims import COARSE, COARSE_PATCH, Dims, PublishedError, Sections
from satjepa.published.names import LORA, Tensors

Shapes = dict[str, tuple[int, ...]]

# Keys of the published file, in its order.
KEYS = (
    "encoder", "predictor", "target_encoder", "proj_head", "cond_adapter", "prompt_embeds",
    "pooled_prompt_embeds", "optimizer", "scaler", "epoch", "best_val_loss", "config", "use_lora",
    "caption_forecaster", LORA,
)  # fmt: skip
CAPTIONS = ("informative", "geometric", "semantic")
PLACES = 1024  # rows of the adapter's position table, of its years, side of coarse patches
HISTORY = 4
_LORA_NAME = re.compile(
    r"base_model\.model\.transformer_blocks\.(\d+)\.(attn2?)\.(.+)\.lora_(A|B)\.default\.weight"
)


def expected(dims: Dims, lora: Tensors) -> dict[str, Shapes]:
    """The shape of every tensor of a checkpoint of these dimensions: section -> name -> shape, in
    the published order.

    LoRA: on the kinds of layer that `lora` names, in every block of the transformer up to its last.
    """
    d = dims
    table = (1, d.grid**2)
    width = 3 * COARSE_PATCH**2
    encoder = {
        "pos_embed": (*table, d.token_dim),
        "patch_embed.proj.weight": (d.token_dim, 3, d.patch, d.patch),
        "patch_embed.proj.bias": (d.token_dim,), **_blocks("blocks", d.token_dim, d.depth),
        **_norm("norm", d.token_dim),
    }  # fmt: skip
    predictor = {
        "mask_token": (1, 1, d.predictor_dim), "predictor_pos_embed": (*table, d.predictor_dim),
        **_linear("predictor_embed", d.token_dim, d.predictor_dim),
        **_blocks("predictor_blocks", d.predictor_dim, d.predictor_depth), **_norm("predictor_norm",
        d.predictor_dim), **_linear("predictor_proj", d.predictor_dim, d.token_dim),
    }  # fmt: skip
    head = {"weight": (64, d.token_dim), "bias": (64,)}
    adapter = _coarse_adapter(d, width) if d.coarse else _caption_adapter(d)
    sections = {
        "encoder": encoder,
        "predictor": predictor,
        "target_encoder": encoder,
        "proj_head": head,
    }
    sections["cond_adapter"] = adapter | _temporal("temporal_attn", d.joint_dim)
    if d.forecaster_layers and not d.coarse:
        sections["caption_forecaster"] = _forecaster(d)
    return sections | {LORA: _lora(lora, d.lora_rank)}


def _caption_adapter(d: Dims) -> Shapes:
    shapes = {
        "ijepa_pos_embed": (1, PLACES, d.token_dim),
        "pooled_fusion_weights": (1 + len(CAPTIONS),),
    }
    shapes |= _norm("ijepa_input_norm", d.token_dim)
    shapes |= _three_layers("ijepa_token_proj", d.token_dim, d.adapter_dim, d.joint_dim)
    shapes |= _linear("ijepa_pool_proj.0", d.token_dim, d.adapter_dim)
    shapes |= _linear("ijepa_pool_proj.2", d.adapter_dim, d.pooled_dim)
    for name in CAPTIONS:
        shapes |= _norm(f"{name}_proj.0", d.joint_dim) | _linear(
            f"{name}_proj.1", d.joint_dim, d.adapter_dim
        )
        shapes |= _linear(f"{name}_proj.3", d.adapter_dim, d.joint_dim) | _norm(
            f"{name}_proj.4", d.joint_dim
        )
        shapes |= _linear(f"{name}_pool_proj", d.pooled_dim, d.pooled_dim)
    return (
        shapes | _attention("stream_fusion", d.joint_dim) | _norm("stream_fusion_norm", d.joint_dim)
    )


def _coarse_adapter(d: Dims, width: int) -> Shapes:
    shapes = {
        "pos_embed": (1, PLACES, d.token_dim),
        COARSE: (1, (d.coarse // COARSE_PATCH) ** 2, width),
    }
    shapes |= _norm("input_norm", d.token_dim)
    shapes |= _three_layers("token_proj", d.token_dim, d.adapter_dim, d.joint_dim)
    shapes |= _linear("pool_proj.0", d.token_dim, d.adapter_dim) | _linear(
        "pool_proj.2", d.adapter_dim, d.pooled_dim
    )
    shapes |= _three_layers("coarse_rgb_proj", width, d.adapter_dim, d.joint_dim)
    return shapes | _linear("fusion_gate.0", 2 * d.joint_dim, d.joint_dim)


def _temporal(name: str, dim: int) -> Shapes:
    shapes = {f"{name}.temporal_pos_embed": (HISTORY, 1, dim)} | _attention(
        f"{name}.cross_attn", dim
    )
    shapes |= _norm(f"{name}.norm_q", dim) | _norm(f"{name}.norm_kv", dim)
    shapes |= _linear(f"{name}.post_proj.0", dim, dim) | _norm(f"{name}.post_proj.1", dim)
    return shapes | _linear(f"{name}.temporal_gate.0", 2 * dim, dim)


def _forecaster(d: Dims) -> Shapes:
    dim = d.forecaster_dim
    shapes = {}
    for name, width in (("ijepa_proj", d.token_dim), ("text_proj", d.joint_dim)):
        shapes |= (
            _norm(f"{name}.0", width)
            | _linear(f"{name}.1", width, dim)
            | _linear(f"{name}.3", dim, dim)
        )
    for layer in (f"cross_attn_layers.{i}" for i in range(d.forecaster_layers)):
        shapes |= _attention(f"{layer}.self_attn", dim) | _attention(f"{layer}.multihead_attn", dim)
        shapes |= _linear(f"{layer}.linear1", dim, 4 * dim) | _linear(
            f"{layer}.linear2", 4 * dim, dim
        )
        shapes |= (
            _norm(f"{layer}.norm1", dim)
            | _norm(f"{layer}.norm2", dim)
            | _norm(f"{layer}.norm3", dim)
        )
    shapes |= _norm("delta_predictor.0", dim) | _linear("delta_predictor.1", dim, dim)
    shapes |= _linear("delta_predictor.4", dim, dim)
    shapes |= _norm("output_proj.0", dim) | _linear("output_proj.1", dim, d.joint_dim)
    return shapes | _linear("delta_gate.0", 2 * dim, dim)


def _lora(found: Tensors, rank: int) -> Shapes:
    """A (rank,width) and B (width,rank) on every attention of every block, for each kind of layer
    that is there.
    """
    seen = [match.groups() for name in found if (match := _LORA_NAME.fullmatch(name))]
    if not seen:
        raise PublishedError(f"{LORA} has no tensor `{_LORA_NAME.pattern}`")
    width = mode(max(tensor.shape) for tensor in found.values() if tensor.ndim == 2)
    places = {(int(block), attention) for block, attention, _, _ in seen}
    places |= {(block, "attn") for block in range(len({block for block, _ in places}))}
    targets = lora_targets(found)
    layers = [
        f"{block}.{attention}.{target}" for block, attention in sorted(places) for target in targets
    ]
    return {
        f"base_model.model.transformer_blocks.{layer}.lora_{side}.default.weight": shape
        for layer in layers
        for side, shape in (("A", (rank, width)), ("B", (width, rank)))
    }


def _linear(name: str, in_dim: int, out_dim: int) -> Shapes:
    return {f"{name}.weight": (out_dim, in_dim), f"{name}.bias": (out_dim,)}


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _attention(name: str, dim: int) -> Shapes:
    packed = {f"{name}.in_proj_weight": (3 * dim, dim), f"{name}.in_proj_bias": (3 * dim,)}
    return packed | _linear(f"{name}.out_proj", dim, dim)


def _three_layers(name: str, in_dim: int, dim: int, out_dim: int) -> Shapes:
    first = _linear(f"{name}.0", in_dim, dim) | _norm(f"{name}.1", dim)
    second = _linear(f"{name}.3", dim, dim)
    return (
        first
        | second
        | _norm(f"{name}.4", dim)
        | _linear(f"{name}.6", dim, out_dim)
        | _norm(f"{name}.7", out_dim)
    )


def _blocks(name: str, dim: int, depth: int) -> Shapes:
    """Blocks of a ViT."""
    shapes: Shapes = {}
    for block in (f"{name}.{i}" for i in range(depth)):
        shapes |= _norm(f"{block}.norm1", dim) | _linear(f"{block}.attn.qkv", dim, 3 * dim)
        shapes |= _linear(f"{block}.attn.proj", dim, dim) | _norm(f"{block}.norm2", dim)
        shapes |= _linear(f"{block}.mlp.fc1", dim, 4 * dim) | _linear(
            f"{block}.mlp.fc2", 4 * dim, dim
        )
    return shapes


def lora_targets(found: Tensors) -> list[str]:
    """Which kinds of layer have LoRA: `to_q`, `to_out.0`, ..."""
    return list(dict.fromkeys(match[3] for name in found if (match := _LORA_NAME.fullmatch(name))))


def check(found: Sections, wanted: dict[str, Shapes]) -> None:
    """PublishedError names the first tensor, in the published order, that is missing, unknown, or
    of another shape or dtype. All are float32; LoRA may as well be bfloat16 (as some releases of
    peft save it), all of it alike.
    """
    half = {tensor.dtype for tensor in found[LORA].values()} == {torch.bfloat16}
    for section, shapes in wanted.items():
        dtype = torch.bfloat16 if half and section == LORA else torch.float32
        for name, shape in shapes.items():
            here = found[section].get(name)
            if here is None:
                raise PublishedError(f"{section} has no tensor `{name}`")
            if here.shape != shape:
                raise PublishedError(
                    f"{section}: `{name}` has shape {tuple(here.shape)}, expected {shape}"
                )
            if here.dtype != dtype:
                raise PublishedError(
                    f"{section}: `{name}` has dtype {here.dtype}, expected {dtype}"
                )
        if unknown := [name for name in found[section] if name not in shapes]:
            raise PublishedError(f"{section}: `{unknown[0]}` is no tensor of this checkpoint")
    if odd := sorted(found.keys() - wanted.keys()):
        raise PublishedError(f"{odd[0]} does not go with this kind of cond_adapter")
