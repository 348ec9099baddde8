"""EarthDial's config.json in the words of transformers' own classes.

EarthDial is InternVL2 with Phi-3 as its language model, in a layout of its own. transformers has
both as `InternVLForConditionalGeneration` with a `Phi3Config`; what differs is the names of the
keys and a few defaults, each of which would pass in silence and give other captions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import GenerationConfig, InternVLConfig

Json = Mapping[str, Any]
MODEL_TYPE = "internvl_chat"
# EarthDial's key of `vision_config` -> that of InternVLVisionConfig
VISION = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "norm_type": "norm_type",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_channels": "num_channels",
    "attention_dropout": "attention_dropout",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
    "initializer_factor": "layer_scale_init_value",
    "dropout": "hidden_dropout_prob",
}
# Keys of `llm_config` that Phi3Config has by the same name: those that must be there, the others
TEXT = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
    "hidden_act",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
TEXT_TOO = (
    "num_key_value_heads",
    "original_max_position_embeddings",
    "sliding_window",
    "rope_theta",
    "attention_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "initializer_range",
    "tie_word_embeddings",
)
# Dotted key -> the values that the conversion knows. Any other would change the captions unnoticed.
ACCEPTED: dict[str, tuple[Any, ...]] = {
    "model_type": (MODEL_TYPE,),
    "template": ("phi3-chat",),
    "ps_version": ("v2",),  # v1 leaves the tokens of an image transposed
    "pad2square": (False, None),
    "use_backbone_lora": (0, None),  # a LoRA would be weights beside the weights
    "use_llm_lora": (0, None),
    "llm_config.architectures": (["Phi3ForCausalLM"],),
}
LONG_ROPE = ("su", "longrope")  # one scaling, renamed; "yarn" scales differently here and there


class CheckpointRefused(ValueError):
    """A checkpoint that cannot be imported as it is; the message names the file and what to do."""


def read_json(file: Path) -> Any:
    """What a JSON file of a checkpoint holds; CheckpointRefused where it is none."""
    if not file.is_file():
        raise CheckpointRefused(
            f"{file.parent} has no {file.name}: give the complete folder of an EarthDial checkpoint"
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointRefused(f"{file} is not JSON ({error}): download it again") from error


def value_of(raw: Json, dotted: str) -> Any:
    """The value of a dotted key of config.json; CheckpointRefused where there is none."""
    value: Any = raw
    for name in dotted.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise CheckpointRefused(
                f"config.json has no {dotted}, which EarthDial's has: is it another model?"
            )
        value = value[name]
    return value


def require_known(raw: Json) -> None:
    """CheckpointRefused where config.json asks for something that the conversion does not do."""
    for dotted, accepted in ACCEPTED.items():
        value = value_of(raw, dotted) if None not in accepted else raw.get(dotted)
        if value not in accepted:
            raise CheckpointRefused(_unknown(dotted, value, accepted))
    side = value_of(raw, "vision_config.image_size")
    if raw.get("force_image_size") not in (None, side):
        raise CheckpointRefused(_unknown("force_image_size", raw["force_image_size"], (None, side)))
    if raw.get("dynamic_image_size") and not raw.get("use_thumbnail"):
        raise CheckpointRefused(_unknown("use_thumbnail", raw.get("use_thumbnail"), (True,)))


def _unknown(dotted: str, value: Any, accepted: tuple[Any, ...]) -> str:
    known = " or ".join(json.dumps(one) for one in accepted)
    return (
        f"config.json: {dotted} is {json.dumps(value)}, accepted: {known}. The conversion knows "
        "EarthDial_4B_RGB's architecture alone"
    )


def tokens_per_tile(raw: Json) -> int:
    """How many tokens of the language model one tile of an image becomes."""
    side = value_of(raw, "vision_config.image_size") // value_of(raw, "vision_config.patch_size")
    return int(side**2 * value_of(raw, "downsample_ratio") ** 2)


def native_config(raw: Json, image_token_id: int) -> InternVLConfig:
    """The configuration of transformers for EarthDial's `raw` config.json, each size read from it.

    image_token_id: of `<IMG_CONTEXT>` in its tokenizer. Raises CheckpointRefused.
    """
    from transformers import InternVLConfig, InternVLVisionConfig, Phi3Config

    require_known(raw)
    vision = {ours: value_of(raw, f"vision_config.{theirs}") for theirs, ours in VISION.items()}
    vision["projection_dropout"] = vision["hidden_dropout_prob"]
    text = {name: value_of(raw, f"llm_config.{name}") for name in TEXT}
    text |= {name: raw["llm_config"][name] for name in TEXT_TOO if name in raw["llm_config"]}
    return InternVLConfig(
        vision_config=InternVLVisionConfig(**vision),
        text_config=Phi3Config(**text, **_rope(raw["llm_config"])),
        image_token_id=image_token_id,
        image_seq_length=tokens_per_tile(raw),
        downsample_ratio=value_of(raw, "downsample_ratio"),
        vision_feature_layer=value_of(raw, "select_layer"),
        vision_feature_select_strategy="default",  # the class token is dropped
        projector_hidden_act="gelu",
        # True by default there: `lm_head` would be replaced by the embeddings
        tie_word_embeddings=bool(raw["llm_config"].get("tie_word_embeddings", False)),
        architectures=["InternVLForConditionalGeneration"],
        dtype=raw.get("torch_dtype") or "bfloat16",
    )


def _rope(llm: Json) -> dict[str, Any]:
    scaling = llm.get("rope_scaling")
    if not scaling:
        return {}
    if scaling.get("type") not in LONG_ROPE:
        raise CheckpointRefused(
            _unknown("llm_config.rope_scaling.type", scaling.get("type"), LONG_ROPE)
        )
    factors = {
        name: value_of(llm, f"rope_scaling.{name}") for name in ("short_factor", "long_factor")
    }
    return {"rope_scaling": {"rope_type": "longrope", **factors}}


def generation_config(raw: Json, end_token_id: int) -> GenerationConfig:
    """Greedy, and stopped by `<|end|>` alone: `<|endoftext|>`, by which transformers would stop,
    is what EarthDial pads with.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=value_of(raw, "llm_config.bos_token_id"),
        pad_token_id=value_of(raw, "llm_config.pad_token_id"),
        eos_token_id=end_token_id,
        do_sample=False,
        use_cache=True,  # EarthDial's own says false, which its training had set
    )
