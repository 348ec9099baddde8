"""A small checkpoint in EarthDial's layout with random weights, of sizes that no other one has, and
the model of transformers that it must become.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

BASE = 273  # pieces of the sentencepiece model: 3 special ones, 256 bytes, a few letters
LETTERS = ["▁", "a", "t", "r", "e", "s", "i", "n", "at", "re", "▁a", "rea", "▁t", "ar"]
CHAT = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
EXTRA = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "[s2_rgb_10]", "[caption]"]
NUMBER = {token: BASE + i for i, token in enumerate(CHAT + EXTRA)}
VOCABULARY = BASE + len(NUMBER) + 4  # rows that no token has, as the hub's may
VISION = {
    "hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 5, "intermediate_size": 56,
    "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 2e-6, "norm_type": "layer_norm",
    "image_size": 84, "patch_size": 14, "num_channels": 3, "attention_dropout": 0.0, "dropout": 0.0,
    "qkv_bias": True, "qk_normalization": False, "initializer_factor": 0.5, "drop_path_rate": 0.1,
}  # fmt: skip
LANGUAGE = {
    "architectures": ["Phi3ForCausalLM"], "vocab_size": VOCABULARY, "hidden_size": 48,
    "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "rms_norm_eps": 3e-5, "hidden_act": "silu",
    "max_position_embeddings": 4096, "original_max_position_embeddings": 64, "rope_theta": 2e4,
    "rope_scaling": {"type": "su", "short_factor": [1.5, 1.25, 1.0, 2.0],
                     "long_factor": [9.0, 11.0, 13.0, 17.0]},
    "bos_token_id": 1, "eos_token_id": BASE, "pad_token_id": BASE, "sliding_window": 262144,
    "tie_word_embeddings": False, "use_cache": False,
}  # fmt: skip
CONFIG = {
    "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "template": "phi3-chat",
    "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
                 "AutoModel": "modeling_internvl_chat.InternVLChatModel"},
    "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": 84,
    "max_dynamic_patch": 4, "min_dynamic_patch": 1, "pad2square": False, "ps_version": "v2",
    "select_layer": -1, "torch_dtype": "bfloat16", "use_backbone_lora": 0, "use_llm_lora": 0,
    "use_thumbnail": True, "vision_config": VISION, "llm_config": LANGUAGE,
}  # fmt: skip


def native_model() -> torch.nn.Module:
    """The same sizes in transformers' own words, written out here by hand, with random weights."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration
    from transformers import InternVLVisionConfig as Vision
    from transformers import Phi3Config as Text

    rope = LANGUAGE["rope_scaling"]
    config = InternVLConfig(
        vision_config=Vision(
            hidden_size=40, num_hidden_layers=3, num_attention_heads=5, intermediate_size=56,
            attention_bias=True, use_qk_norm=False, hidden_act="gelu_pytorch_tanh",
            image_size=84, patch_size=14, layer_norm_eps=2e-6, layer_scale_init_value=0.5,
        ),
        text_config=Text(
            vocab_size=VOCABULARY, hidden_size=48, intermediate_size=72, num_hidden_layers=2,
            num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=3e-5,
            max_position_embeddings=4096, original_max_position_embeddings=64, rope_theta=2e4,
            rope_scaling={"rope_type": "longrope", "short_factor": rope["short_factor"],
                          "long_factor": rope["long_factor"]},
            bos_token_id=1, eos_token_id=BASE, pad_token_id=BASE, sliding_window=262144,
        ),
        image_token_id=NUMBER["<IMG_CONTEXT>"], image_seq_length=9, downsample_ratio=0.5,
        vision_feature_layer=-1, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(3)
    model = InternVLForConditionalGeneration(config).bfloat16().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(0.3 * torch.randn(tensor.shape) + (tensor == 1))
    return model


def theirs(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of transformers under EarthDial's names, q, k and v put together."""
    tensors = {}
    renames = [
        (r"model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"model\.multi_modal_projector\.layer_norm\.", "mlp1.0."),
        (r"model\.multi_modal_projector\.linear_1\.", "mlp1.1."),
        (r"model\.multi_modal_projector\.linear_2\.", "mlp1.3."),
        (r"model\.vision_tower\.encoder\.layer\.", "vision_model.encoder.layers."),
        (r"model\.vision_tower\.", "vision_model."),
        (r"embeddings\.cls_token", "embeddings.class_embedding"),
        (r"patch_embeddings\.projection\.", "patch_embedding."),
        (r"position_embeddings", "position_embedding"),
        (r"attention\.projection_layer", "attn.proj"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"lambda_(\d)", r"ls\1"),
    ]
    for name, tensor in state.items():
        if match := re.search(r"attention\.q_proj\.(weight|bias)", name):
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            tensor = torch.cat(parts)
            name = name.replace(match[0], f"attn.qkv.{match[1]}")
        elif re.search(r"attention\.[kv]_proj", name):
            continue
        for pattern, to in renames:
            name = re.sub(pattern, to, name)
        tensors[name] = tensor.contiguous()
    return tensors


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def sentencepiece_model(kind: int = 2) -> bytes:
    """A sentencepiece model: BPE (2) with byte fallback, as protocol buffers lay it out."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *LETTERS]
    assert len(pieces) == BASE
    blob = b"".join(_field(1, _field(1, piece.encode())) for piece in pieces)
    return blob + _field(2, _field(3, kind) + _field(4, BASE))


def tokenizer_config() -> dict:
    def token(text: str, rstrip: bool) -> dict:
        flags = dict.fromkeys(("lstrip", "normalized", "single_word"), False)
        return {"content": text, "rstrip": rstrip, "special": True} | flags

    added = {0: token("<unk>", False), 1: token("<s>", False), 2: token("</s>", True)}
    for text, number in NUMBER.items():
        added[number] = token(text, text in CHAT and text != "<|endoftext|>")
    return {
        "add_bos_token": True, "add_eos_token": False, "legacy": False, "bos_token": "<s>",
        "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
        "added_tokens_decoder": {str(number): token for number, token in added.items()},
        "model_max_length": 4096, "tokenizer_class": "LlamaTokenizer",
    }  # fmt: skip


def write_checkpoint(folder: Path) -> torch.nn.Module:
    """Write it in two shards with their index; the model that it must become."""
    folder.mkdir(parents=True)
    model = native_model()
    tensors = theirs(model.state_dict())
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2],
              "model-00002-of-00002.safetensors": names[1::2]}  # fmt: skip
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    places = {name: file for file, part in shards.items() for name in part}
    texts = {
        "config.json": CONFIG,
        "tokenizer_config.json": tokenizer_config(),
        "model.safetensors.index.json": {"metadata": {}, "weight_map": places},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    return model
