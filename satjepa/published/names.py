"""The names of the published checkpoint's tensors and ours.

Adapter, projection head and caption forecaster have the same names there and here. Encoder and
predictor are our own (`satjepa.models.jepa`): the tables below are the one place that knows how
theirs are called.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
LORA = "lora_state_dict"
# Sections of tensors in the published file -> what stands before their names in our model's state.
SECTIONS = {
    "encoder": "encoder.", "predictor": "predictor.", "target_encoder": "target_encoder.",
    "proj_head": "projection.", "cond_adapter": "adapter.", "caption_forecaster": "forecaster.",
    LORA: "backbone.transformer.",
}  # fmt: skip
# Published beginnings of a tensor's name -> ours, in the published order; the other sections have
# equal names.
_ENCODER = {
    "pos_embed": "positions",
    "patch_embed.proj.": "patches.",
    "blocks.": "blocks.",
    "norm.": "norm.",
}
_PREDICTOR = {
    "mask_token": "mask_token", "predictor_pos_embed": "positions", "predictor_embed.": "embed.",
    "predictor_blocks.": "blocks.", "predictor_norm.": "norm.", "predictor_proj.": "proj.",
}  # fmt: skip
BEGINNINGS = {
    "encoder": _ENCODER,
    "target_encoder": _ENCODER,
    "predictor": _PREDICTOR,
    LORA: {"base_model.model.": ""},
}
_INSIDE = {".mlp.fc1.": ".mlp.0.", ".mlp.fc2.": ".mlp.2."}


def to_ours(section: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors of a published section under the names of our model's state.

    They are views, nothing is copied. qkv (3D,D) falls into q and kv; a position table (1,N,D)
    loses its first axis.
    """
    state = {}
    table = BEGINNINGS[section] | _INSIDE if section in BEGINNINGS else {}
    for name, tensor in tensors.items():
        ours = SECTIONS[section] + _renamed(name, table)
        if ".attn.qkv." in ours:
            dim = len(tensor) // 3
            state[ours.replace(".qkv.", ".q.")] = tensor[:dim]
            state[ours.replace(".qkv.", ".kv.")] = tensor[dim:]
        elif ours.endswith(".positions"):
            state[ours] = tensor[0]
        else:
            state[ours] = tensor
    return state


def to_published(section: str, state: Mapping[str, Tensor]) -> Tensors:
    """The inverse of `to_ours`: what of our state belongs to a section.

    In the published names and order.
    """
    begin = SECTIONS[section]
    ours = {}
    for name, tensor in state.items():
        if name.startswith(begin):
            ours[name.removeprefix(begin)] = tensor
    if section == LORA:
        return {f"base_model.model.{name}": ours[name] for name in ours if ".lora_" in name}
    if section not in BEGINNINGS:
        return ours
    published = {}
    back = {our_part: part for part, our_part in (BEGINNINGS[section] | _INSIDE).items()}
    for beginning in BEGINNINGS[section].values():
        for name, tensor in ours.items():
            if not name.startswith(beginning) or ".attn.kv." in name:
                continue  # of another part, or taken together with its q
            if ".attn.q." in name:
                tensor = torch.cat([tensor, ours[name.replace(".q.", ".kv.")]])
                name = name.replace(".q.", ".qkv.")
            published[_renamed(name, back)] = tensor[None] if name == "positions" else tensor
    return published


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """A name with its beginning, and one part after it, put in other words."""
    for old, new in table.items():
        if name.startswith(old):
            name = new + name[len(old) :]
            break
    for old, new in table.items():
        if old.startswith("."):
            name = name.replace(old, new)
    return name
