"""EarthDial's tokenizer, conversation and tiles as a processor of transformers.

The slow tokenizer that EarthDial was trained with starts a prompt with `<s>`, then the mark of a
space, then `<|system|>`. transformers 5 leaves that mark out; a space in front of the prompt's text
brings it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.captions.earthdial_config import (
    CheckpointRefused,
    read_json,
    tokens_per_tile,
    value_of,
)

if TYPE_CHECKING:
    from transformers import InternVLProcessor, LlamaTokenizer

# What InternVL2 tells its model of itself, in Chinese; EarthDial was fine-tuned with it.
SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。"
)
IMAGE = "<IMG_CONTEXT>"
END = "<|end|>"
# What transformers' processor wants to know by name; no prompt has a video
ROLES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": IMAGE,
    "video_token": "</quad>",
}
TURNS = ("<|system|>", "<|user|>", "<|assistant|>", END)
# Flags of tokenizer_config.json without which the ids are others
FLAGS = {"legacy": False, "add_bos_token": True}
KEPT = (*FLAGS, "add_eos_token", "bos_token", "eos_token", "pad_token", "unk_token")
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as all InternVL
STD = (0.229, 0.224, 0.225)
# Field numbers of sentencepiece's model file (its sentencepiece_model.proto)
PIECES = 1
TRAINER = 2
PIECE_TEXT = 1
TRAINER_KIND = 3
BPE = 2


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffers message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}[kind] if kind in (1, 5) else varint()
        yield tag >> 3, message[at : at + size]
        at += size


def read_pieces(file: Path) -> list[str]:
    """The pieces of a sentencepiece BPE in the order of their ids, read without sentencepiece.

    CheckpointRefused where the file is none, or of another kind than BPE.
    """
    if not file.is_file():
        raise CheckpointRefused(f"{file.parent} has no {file.name}: copy it there, too")
    pieces = []
    kind = None
    try:
        for number, value in _fields(file.read_bytes()):
            if number == PIECES:
                pieces.append(dict(_fields(value))[PIECE_TEXT].decode())
            elif number == TRAINER:
                kind = dict(_fields(value)).get(TRAINER_KIND)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CheckpointRefused(
            f"{file} is not a sentencepiece model ({error!r}): download it again"
        ) from error
    if kind != BPE:
        raise CheckpointRefused(f"{file} is a sentencepiece model of kind {kind}, not {BPE} (BPE)")
    return pieces


def _merges(pieces: list[str]) -> list[tuple[str, str]]:
    """The pairs that a BPE puts together, the most urgent first: an earlier piece goes first."""
    ids = {piece: number for number, piece in enumerate(pieces)}
    merges = []
    for number, piece in enumerate(pieces):
        for cut in range(1, len(piece)):
            left = piece[:cut]
            right = piece[cut:]
            if left in ids and right in ids:
                merges.append((number, ids[left], left, right))
    return [(left, right) for _, _, left, right in sorted(merges)]


def read_tokenizer(folder: Path) -> LlamaTokenizer:
    """The tokenizer of an EarthDial checkpoint, with equal ids for what begins as a prompt does.

    CheckpointRefused where its flags are others, or a token that a prompt needs is lacking.
    """
    from tokenizers import AddedToken
    from transformers import LlamaTokenizer

    file = folder / "tokenizer_config.json"
    settings = read_json(file)
    for flag, wanted in FLAGS.items():
        if settings.get(flag) is not wanted:
            raise CheckpointRefused(
                f"{file}: {flag} is {json.dumps(settings.get(flag))}, accepted: "
                f"{json.dumps(wanted)}; with another value prompts have other ids"
            )
    pieces = read_pieces(folder / "tokenizer.model")
    added = {
        int(number): AddedToken(**token)
        for number, token in settings.get("added_tokens_decoder", {}).items()
    }
    names = {token.content for token in added.values()}
    lacking = [token for token in (*ROLES.values(), *TURNS) if token not in names]
    if lacking:
        raise CheckpointRefused(f"{file}: added_tokens_decoder lacks {', '.join(lacking)}")
    return LlamaTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=_merges(pieces),
        added_tokens_decoder=added,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=settings.get("model_max_length"),
        extra_special_tokens=ROLES,
        **{name: _plain(settings[name]) for name in KEPT if name in settings},
    )


def _plain(value: Any) -> Any:
    """A token that some versions of transformers save with its flags, as its text."""
    return value["content"] if isinstance(value, Mapping) else value


def chat_template(system: str) -> str:
    """EarthDial's conversation: no line break between turns; an image with no text before it is
    followed by one, an image inside a text stands where it stands.
    """
    return (
        "{%- set ns = namespace(text=false) -%}"
        f"{{{{- ' <|system|>\n' + {json.dumps(system, ensure_ascii=False)} + '{END}' -}}}}"
        "{%- for message in messages -%}"
        "{{- '<|user|>\n' if message['role'] == 'user' else '<|assistant|>\n' -}}"
        "{%- if message['content'] is string -%}{{- message['content'] -}}"
        "{%- else -%}{%- set ns.text = false -%}"
        "{%- for part in message['content'] -%}"
        "{%- if part['type'] == 'image' -%}"
        f"{{{{- '{IMAGE}' if ns.text else '{IMAGE}\n' -}}}}"
        "{%- else -%}{%- set ns.text = true -%}{{- part['text'] -}}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
        f"{{{{- '{END}' -}}}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}"
    )


def build_processor(raw: Mapping[str, Any], tokenizer: LlamaTokenizer) -> InternVLProcessor:
    """Images to tiles and pixels, conversations to ids, as EarthDial's config.json says."""
    from transformers import InternVLProcessor, InternVLVideoProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    side = value_of(raw, "vision_config.image_size")
    size = {"height": side, "width": side}
    tiled = value_of(raw, "dynamic_image_size")
    images = GotOcr2ImageProcessorPil(
        size=size,
        image_mean=MEAN,
        image_std=STD,
        crop_to_patches=True,
        min_patches=value_of(raw, "min_dynamic_patch") if tiled else 1,
        max_patches=value_of(raw, "max_dynamic_patch") if tiled else 1,
    )
    return InternVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=tokens_per_tile(raw),
        chat_template=chat_template(raw.get("system_message") or SYSTEM),
    )
