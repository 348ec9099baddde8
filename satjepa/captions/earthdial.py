"""EarthDial's checkpoint as a folder that plain transformers loads, without remote code.

The published checkpoint (akshaydudhane/EarthDial_4B_RGB) has no model code beside its weights, so
that `trust_remote_code=True` cannot load it: its code is a package of its own. transformers has the
same architecture under other names (`InternVLForConditionalGeneration` with Phi-3), and the import
translates configuration, weights, tokenizer and conversation once. What the hub's files hold was
not seen here: whatever the translation assumes is read from them and refused where it differs.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.captions.earthdial_config import (
    CheckpointRefused,
    generation_config,
    native_config,
    read_json,
)
from satjepa.captions.earthdial_text import END, IMAGE, build_processor, read_tokenizer
from satjepa.captions.earthdial_weights import (
    model_shapes,
    require_fitting,
    weight_files,
    write_weights,
)
from satjepa.paths import readable, write_text

if TYPE_CHECKING:
    from transformers import GenerationConfig, InternVLConfig, InternVLProcessor

ORIGIN = "satjepa_import.json"  # says what an imported folder was made of
PROMPTS = "earthdial"  # those that such a folder is asked with
WANTED = ("*.json", "*.safetensors", "tokenizer.model")  # of a hub repository


def import_earthdial(
    source: str | Path, folder: str | Path, revision: str | None = None, progress: bool = True
) -> Path:
    """Translate EarthDial's checkpoint into `folder`, which appears when it is complete.

    Args:
        source: folder of the checkpoint as it is published, or its hub id.
        folder: what to make; must not exist.
        revision: commit, tag or branch of the hub repository.

    Returns `folder`. Raises CheckpointRefused where the checkpoint is incomplete, or not
    EarthDial's; OSError for what the disk or the hub refuses.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists():
        raise CheckpointRefused(f"{folder} exists: name a folder that does not, or remove it")
    found, commit = _local(source, revision)
    raw = read_json(found / "config.json")
    tokenizer = read_tokenizer(found)
    config = native_config(raw, tokenizer.convert_tokens_to_ids(IMAGE))
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    if vocabulary > config.text_config.vocab_size:
        raise CheckpointRefused(
            f"{found}: the tokenizer has {vocabulary} tokens, config.json llm_config.vocab_size is "
            f"{config.text_config.vocab_size}: they are of different checkpoints"
        )
    files = weight_files(found)
    shapes = model_shapes(config)
    require_fitting(files, shapes, config.tie_word_embeddings)
    generation = generation_config(raw, tokenizer.convert_tokens_to_ids(END))
    processor = build_processor(raw, tokenizer)
    part = folder.with_name(f".{folder.name}.part")  # one name: what a kill leaves is cleared away
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_weights(files, part, len(shapes), progress)
        origin = {"source": str(source), "revision": commit, "prompts": PROMPTS}
        _save_settings(part, config, generation, processor, origin)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _save_settings(
    folder: Path,
    config: InternVLConfig,
    generation: GenerationConfig,
    processor: InternVLProcessor,
    origin: dict[str, Any],
) -> None:
    config.save_pretrained(folder)
    generation.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_text(folder / ORIGIN, json.dumps(origin, indent=1) + "\n")
    readable(folder)


def _local(source: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """The folder of a checkpoint, downloaded where `source` is a hub id, and its commit."""
    if Path(source).is_dir():
        if revision is not None:
            raise CheckpointRefused(f"{source} is a folder, and --revision is for a hub id")
        return Path(source), None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = snapshot_download(str(source), revision=revision, allow_patterns=list(WANTED))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise CheckpointRefused(
            f"{source} is no folder, and as a hub id it cannot be had "
            f"({str(error).strip().splitlines()[0]}): check the name, or download it where there "
            "is a network and give the folder"
        ) from error
    return Path(folder), Path(folder).name  # .../snapshots/<commit>


def origin_of(path: str | Path) -> dict[str, Any] | None:
    """What an imported folder was made of; None for any other model."""
    file = Path(path) / ORIGIN
    return read_json(file) if file.is_file() else None
