"""The published checkpoint `s2_future_jepa-best.pth.tar`, read and written.

    published = read_published(path)           nothing is copied: its tensors are the mapped file
    write_published(published.content, path)

The file is a pickle inside a zip archive. It is read with `weights_only=True`, so no code in it
runs, and every tensor is compared with what the architecture asks for before anything is believed.
A token in its configuration (the published code saves `hf_token`) is dropped when it is read and
when it is written.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from satjepa.published.dims import Dims, PublishedError, Sections, read_dims
from satjepa.published.layout import KEYS, check, expected
from satjepa.published.names import LORA, SECTIONS, Tensors, to_ours

PROMPTS = ("prompt_embeds", "pooled_prompt_embeds")
REQUIRED = ("encoder", "predictor", "target_encoder", "proj_head", "cond_adapter", LORA)
_SECRET = re.compile(r"token|secret|password|api_?key|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Published:
    """A published checkpoint that has been checked: `content` as in the file, without `module.`
    prefixes and tokens.
    """

    path: Path
    content: dict[str, Any]
    dims: Dims

    def state(self) -> Tensors:
        """Its tensors under the names of `PublishedSatJepa.state`, and the fixed tables as
        `<module>.positions`.
        """
        sections = (to_ours(name, self.content[name]) for name in SECTIONS if name in self.content)
        state = {name: tensor for section in sections for name, tensor in section.items()}
        return state | {"mask_calls": torch.zeros((), dtype=torch.int64)}


def read_published(path: str | Path) -> Published:
    """Read and check a published checkpoint; optimizer, scaler, epoch, loss, configuration and
    prompts are optional.

    PublishedError says what is wrong with a file that is truncated, damaged, foreign or holds code,
    and names the first key, tensor, shape or dtype that differs. FileNotFoundError where there is
    none. The whole file is read once, to verify its checksums, but not kept in memory; it must stay
    unchanged while its tensors are in use.
    """
    path = Path(path)
    try:
        content = _opened(path)
        sections = _sections(content)
        dims = read_dims(sections)
        check(sections, expected(dims, sections[LORA]))
        _check_rest(content, dims)
    except PublishedError as error:
        raise PublishedError(
            f"{path} is not a whole published checkpoint: {error}"
        ) from error.__cause__
    clean = {"config": without_tokens(content["config"])} if "config" in content else {}
    return Published(
        path, {key: (content | sections | clean)[key] for key in KEYS if key in content}, dims
    )


def _opened(path: Path) -> dict[str, Any]:
    """The dictionary in the file, its tensors mapped."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            begin = file.read(4)
        whole = (
            "truncated: it has the beginning of an archive and no end"
            if begin == b"PK\3\4"
            else "no zip archive"
        )
        raise PublishedError(
            f"it is {whole} (first bytes {begin!r}); torch.save writes zip archives"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [
                entry.filename
                for entry in archive.infolist()
                if entry.compress_type != zipfile.ZIP_STORED
            ]
            damaged = packed[0] if packed else archive.testzip()
        if damaged:
            raise PublishedError(
                f"its record `{damaged}` is "
                f"{'compressed' if packed else 'damaged (wrong checksum)'}"
            )
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except PublishedError:
        raise
    except Exception as error:  # whatever a hostile or broken archive makes the reader raise
        raise PublishedError(_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise PublishedError(
            f"it holds a {type(content).__name__}, not a dictionary of state dicts"
        )
    return content


def _unreadable(path: Path, error: Exception) -> str:
    try:
        code = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # then it is no pickle at all
        code = []
    if code:
        return f"it holds `{code[0]}`, which is code and not weights; nothing of it was run"
    return f"torch cannot read it as weights ({str(error).splitlines()[0][:200]})"


def _sections(content: dict[str, Any]) -> Sections:
    """The sections of tensors, without the `module.` that DistributedDataParallel puts before every
    name.
    """
    if odd := [key for key in content if key not in KEYS]:
        raise PublishedError(f"unknown key {odd[0]!r}; it has {', '.join(KEYS)}")
    if missing := [
        key for key in REQUIRED if not isinstance(content.get(key), dict) or not content[key]
    ]:
        raise PublishedError(f"key {missing[0]!r} is missing or no state dict")
    sections = {}
    for section in (key for key in KEYS if key in SECTIONS and key in content):
        for name, tensor in content[section].items():
            if (
                not isinstance(name, str)
                or not isinstance(tensor, Tensor)
                or not tensor.is_contiguous()
            ):
                raise PublishedError(
                    f"{section}: `{name}` is no plain tensor ({type(tensor).__name__})"
                )
        wrapped = all(name.startswith("module.") for name in content[section])
        sections[section] = {
            name.removeprefix("module." * wrapped): t for name, t in content[section].items()
        }
    return sections


def _check_rest(content: dict[str, Any], dims: Dims) -> None:
    """What no forecast reads: prompt embeddings (1,L,joint) and (1,pooled), the state of an
    optimizer.
    """
    for name, wanted in zip(
        PROMPTS, ((1, None, dims.joint_dim), (1, dims.pooled_dim)), strict=True
    ):
        shape = tuple(getattr(content.get(name), "shape", ()))
        fits = len(shape) == len(wanted) and all(
            b in (None, a) for a, b in zip(shape, wanted, strict=True)
        )
        if content.get(name) is not None and not fits:
            raise PublishedError(
                f"`{name}` has shape {shape}, expected {wanted}".replace("None", "L")
            )
    optimizer = content.get("optimizer")
    if optimizer is not None and not (
        isinstance(optimizer, dict) and optimizer.keys() >= {"state", "param_groups"}
    ):
        raise PublishedError(
            "`optimizer` is no state of an optimizer: it has no `state` and `param_groups`"
        )


def write_published(content: Mapping[str, Any], path: str | Path) -> Path:
    """Write a checkpoint in the published layout: of `content` the keys of the layout, in its
    order, without tokens.

    The file appears only when it is complete; equal contents give equal bytes. Raises whatever the
    disk raises.
    """
    path = Path(path)
    ordered = {key: content[key] for key in KEYS if key in content}
    if "config" in ordered:
        ordered["config"] = without_tokens(ordered["config"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        with open(partial, "wb") as file:  # a name would become part of the content
            torch.save(ordered, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def without_tokens(value: Any, key: str = "") -> Any:
    """Plain data without what looks like a secret: texts under keys such as hf_token, and texts
    that begin as one.
    """
    if isinstance(value, Mapping):
        kept = {str(name): without_tokens(item, str(name)) for name, item in value.items()}
        return {name: item for name, item in kept.items() if not _is_secret(name, item)}
    if isinstance(value, list | tuple):
        return [without_tokens(item) for item in value if not _is_secret("", item)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _is_secret(name: str, value: Any) -> bool:
    return isinstance(value, str) and bool(_SECRET.search(name) or re.match(r"hf_\w{8,}", value))
