"""What the published checkpoint must hold: every name and shape, for given dimensions.

It is called `s2_future_jepa-best.pth.tar`. The functions below say it in the order of the file, as
shapes and not as modules: a file is checked before anything is built, and independently of our
networks.
"""

from __future__ import annotations

import re
from statistics import mode

import torch

from satjepa.contracts import CAPTION_KINDS
from satjepa.published.dims import COARSE, COARSE_PATCH, Dims, PublishedError, Sections
from satjepa.published.names import LORA, Tensors

Shapes = dict[str, tuple[int, ...]]

# Keys of the published file, in its order.
KEYS = (
    "encoder", "predictor", "target_encoder", "proj_head", "cond_adapter", "prompt_embeds",
    "pooled_prompt_embeds", "optimizer", "scaler", "epoch", "best_val_loss", "config", "use_lora",
    "caption_forecaster", LORA,
)  # fmt: skip
PLACES = 1024  # rows of the adapter's position table, of its years, side of coarse patches
HISTORY = 4  # rows of the temporal attention's position table
_LORA_PATTERN = (
    r"base_model\.model\.transformer_blocks\.(?P<block>\d+)\.(?P<attention>attn2?)\."
    r"(?P<target>.+)\.lora_(A|B)\.default\.weight"
)
_LORA_NAME = re.compile(_LORA_PATTERN)


def expected(dims: Dims, lora: Tensors) -> dict[str, Shapes]:
    """The shape of every tensor of a checkpoint of these dimensions, in the published order.

    section -> name -> shape. LoRA: on the kinds of layer that `lora` names, in every block of the
    transformer up to its last.
    """
    encoder = _encoder(dims)
    sections = {
        "encoder": encoder,
        "predictor": _predictor(dims),
        "target_encoder": encoder,
        "proj_head": {"weight": (64, dims.token_dim), "bias": (64,)},
    }
    adapter = _coarse_adapter(dims) if dims.coarse else _caption_adapter(dims)
    sections["cond_adapter"] = adapter | _temporal("temporal_attn", dims.joint_dim)
    if dims.forecaster_layers and not dims.coarse:
        sections["caption_forecaster"] = _forecaster(dims)
    sections[LORA] = _lora(lora, dims.lora_rank)
    return sections


def _encoder(d: Dims) -> Shapes:
    shapes = {
        "pos_embed": (1, d.grid**2, d.token_dim),
        "patch_embed.proj.weight": (d.token_dim, 3, d.patch, d.patch),
        "patch_embed.proj.bias": (d.token_dim,),
    }
    shapes |= _blocks("blocks", d.token_dim, d.depth)
    return shapes | _norm("norm", d.token_dim)


def _predictor(d: Dims) -> Shapes:
    shapes = {
        "mask_token": (1, 1, d.predictor_dim),
        "predictor_pos_embed": (1, d.grid**2, d.predictor_dim),
    }
    shapes |= _linear("predictor_embed", d.token_dim, d.predictor_dim)
    shapes |= _blocks("predictor_blocks", d.predictor_dim, d.predictor_depth)
    shapes |= _norm("predictor_norm", d.predictor_dim)
    return shapes | _linear("predictor_proj", d.predictor_dim, d.token_dim)


def _caption_adapter(d: Dims) -> Shapes:
    shapes = {
        "ijepa_pos_embed": (1, PLACES, d.token_dim),
        "pooled_fusion_weights": (1 + len(CAPTION_KINDS),),
    }
    shapes |= _norm("ijepa_input_norm", d.token_dim)
    shapes |= _three_layers("ijepa_token_proj", d.token_dim, d.adapter_dim, d.joint_dim)
    shapes |= _linear("ijepa_pool_proj.0", d.token_dim, d.adapter_dim)
    shapes |= _linear("ijepa_pool_proj.2", d.adapter_dim, d.pooled_dim)
    for name in CAPTION_KINDS:
        shapes |= _norm(f"{name}_proj.0", d.joint_dim)
        shapes |= _linear(f"{name}_proj.1", d.joint_dim, d.adapter_dim)
        shapes |= _linear(f"{name}_proj.3", d.adapter_dim, d.joint_dim)
        shapes |= _norm(f"{name}_proj.4", d.joint_dim)
        shapes |= _linear(f"{name}_pool_proj", d.pooled_dim, d.pooled_dim)
    shapes |= _attention("stream_fusion", d.joint_dim)
    return shapes | _norm("stream_fusion_norm", d.joint_dim)


def _coarse_adapter(d: Dims) -> Shapes:
    width = 3 * COARSE_PATCH**2  # colours of a patch of the shrunk image
    shapes = {
        "pos_embed": (1, PLACES, d.token_dim),
        COARSE: (1, (d.coarse // COARSE_PATCH) ** 2, width),
    }
    shapes |= _norm("input_norm", d.token_dim)
    shapes |= _three_layers("token_proj", d.token_dim, d.adapter_dim, d.joint_dim)
    shapes |= _linear("pool_proj.0", d.token_dim, d.adapter_dim)
    shapes |= _linear("pool_proj.2", d.adapter_dim, d.pooled_dim)
    shapes |= _three_layers("coarse_rgb_proj", width, d.adapter_dim, d.joint_dim)
    return shapes | _linear("fusion_gate.0", 2 * d.joint_dim, d.joint_dim)


def _temporal(name: str, dim: int) -> Shapes:
    shapes = {f"{name}.temporal_pos_embed": (HISTORY, 1, dim)}
    shapes |= _attention(f"{name}.cross_attn", dim)
    shapes |= _norm(f"{name}.norm_q", dim)
    shapes |= _norm(f"{name}.norm_kv", dim)
    shapes |= _linear(f"{name}.post_proj.0", dim, dim)
    shapes |= _norm(f"{name}.post_proj.1", dim)
    return shapes | _linear(f"{name}.temporal_gate.0", 2 * dim, dim)


def _forecaster(d: Dims) -> Shapes:
    dim = d.forecaster_dim
    shapes = {}
    for name, width in (("ijepa_proj", d.token_dim), ("text_proj", d.joint_dim)):
        shapes |= _norm(f"{name}.0", width)
        shapes |= _linear(f"{name}.1", width, dim)
        shapes |= _linear(f"{name}.3", dim, dim)
    for i in range(d.forecaster_layers):
        layer = f"cross_attn_layers.{i}"
        shapes |= _attention(f"{layer}.self_attn", dim)
        shapes |= _attention(f"{layer}.multihead_attn", dim)
        shapes |= _linear(f"{layer}.linear1", dim, 4 * dim)
        shapes |= _linear(f"{layer}.linear2", 4 * dim, dim)
        shapes |= _norm(f"{layer}.norm1", dim)
        shapes |= _norm(f"{layer}.norm2", dim)
        shapes |= _norm(f"{layer}.norm3", dim)
    shapes |= _norm("delta_predictor.0", dim)
    shapes |= _linear("delta_predictor.1", dim, dim)
    shapes |= _linear("delta_predictor.4", dim, dim)
    shapes |= _norm("output_proj.0", dim)
    shapes |= _linear("output_proj.1", dim, d.joint_dim)
    return shapes | _linear("delta_gate.0", 2 * dim, dim)


def _lora(tensors: Tensors, rank: int) -> Shapes:
    """A (rank,width) and B (width,rank) on every attention of every block.

    For each kind of layer that is there. A block has `attn`, and perhaps `attn2`.
    """
    places = set()
    for name in tensors:
        if match := _LORA_NAME.fullmatch(name):
            places.add((int(match["block"]), match["attention"]))
    if not places:
        raise PublishedError(f"{LORA} has no tensor `{_LORA_PATTERN}`")
    blocks = len({block for block, _ in places})
    # Every block up to the last has a first attention, whether or not the file has it.
    places |= {(block, "attn") for block in range(blocks)}
    width = mode(max(tensor.shape) for tensor in tensors.values() if tensor.ndim == 2)
    shapes = {}
    for block, attention in sorted(places):
        for target in lora_targets(tensors):
            layer = f"base_model.model.transformer_blocks.{block}.{attention}.{target}"
            shapes[f"{layer}.lora_A.default.weight"] = (rank, width)
            shapes[f"{layer}.lora_B.default.weight"] = (width, rank)
    return shapes


def _linear(name: str, in_dim: int, out_dim: int) -> Shapes:
    return {f"{name}.weight": (out_dim, in_dim), f"{name}.bias": (out_dim,)}


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _attention(name: str, dim: int) -> Shapes:
    packed = {f"{name}.in_proj_weight": (3 * dim, dim), f"{name}.in_proj_bias": (3 * dim,)}
    return packed | _linear(f"{name}.out_proj", dim, dim)


def _three_layers(name: str, in_dim: int, dim: int, out_dim: int) -> Shapes:
    shapes = _linear(f"{name}.0", in_dim, dim) | _norm(f"{name}.1", dim)
    shapes |= _linear(f"{name}.3", dim, dim) | _norm(f"{name}.4", dim)
    return shapes | _linear(f"{name}.6", dim, out_dim) | _norm(f"{name}.7", out_dim)


def _blocks(name: str, dim: int, depth: int) -> Shapes:
    """Blocks of a ViT."""
    shapes: Shapes = {}
    for i in range(depth):
        block = f"{name}.{i}"
        shapes |= _norm(f"{block}.norm1", dim)
        shapes |= _linear(f"{block}.attn.qkv", dim, 3 * dim)
        shapes |= _linear(f"{block}.attn.proj", dim, dim)
        shapes |= _norm(f"{block}.norm2", dim)
        shapes |= _linear(f"{block}.mlp.fc1", dim, 4 * dim)
        shapes |= _linear(f"{block}.mlp.fc2", 4 * dim, dim)
    return shapes


def lora_targets(tensors: Tensors) -> list[str]:
    """Which kinds of layer have LoRA: `to_q`, `to_out.0`, ..., each once, as they come."""
    matches = [_LORA_NAME.fullmatch(name) for name in tensors]
    return list(dict.fromkeys(match["target"] for match in matches if match))


def check(sections: Sections, wanted: dict[str, Shapes]) -> None:
    """PublishedError names the first tensor, in the published order, that differs.

    It is missing, unknown, or of another shape or dtype. All are float32; LoRA may as well be
    bfloat16 (as some releases of peft save it), all of it alike.
    """
    lora_dtypes = {tensor.dtype for tensor in sections[LORA].values()}
    for section, shapes in wanted.items():
        dtype = torch.float32
        if section == LORA and lora_dtypes == {torch.bfloat16}:
            dtype = torch.bfloat16
        for name, shape in shapes.items():
            tensor = sections[section].get(name)
            if tensor is None:
                raise PublishedError(f"{section} has no tensor `{name}`")
            where = f"{section}: `{name}`"
            if tensor.shape != shape:
                raise PublishedError(f"{where} has shape {tuple(tensor.shape)}, expected {shape}")
            if tensor.dtype != dtype:
                raise PublishedError(f"{where} has dtype {tensor.dtype}, expected {dtype}")
        for name in sections[section]:
            if name not in shapes:
                raise PublishedError(f"{section}: `{name}` is no tensor of this checkpoint")
    if unwanted := sorted(sections.keys() - wanted.keys()):
        raise PublishedError(f"{unwanted[0]} does not go with this kind of cond_adapter")
