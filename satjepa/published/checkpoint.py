"""The published checkpoint `s2_future_jepa-best.pth.tar`, read and written.

    published = read_published(path)           nothing is copied: its tensors are the mapped file
    write_published(published.content, path)

The file is a pickle inside a zip archive. It is read with `weights_only=True`, so no code in it
runs, and every tensor is compared with what the architecture asks for before anything is believed.
A token in its configuration (the published code saves `hf_token`) is dropped when it is read and
when it is written.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from satjepa.paths import replaced
from satjepa.published.dims import Dims, PublishedError, Sections, read_dims
from satjepa.published.layout import KEYS, check, expected
from satjepa.published.names import LORA, SECTIONS, Tensors, to_ours

PROMPTS = ("prompt_embeds", "pooled_prompt_embeds")
REQUIRED = ("encoder", "predictor", "target_encoder", "proj_head", "cond_adapter", LORA)
# Keys under which a text is taken for a secret; a text that begins with hf_ is one under any key.
_SECRET = re.compile(r"token|secret|password|api_?key|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Published:
    """A published checkpoint that has been checked."""

    path: Path
    content: dict[str, Any]  # as in the file, without `module.` prefixes and access tokens
    dims: Dims

    def state(self) -> Tensors:
        """Its tensors under the names of `PublishedSatJepa.state`.

        The fixed position tables are there as `<module>.positions`.
        """
        state = {}
        for section in SECTIONS:
            if section in self.content:
                state |= to_ours(section, self.content[section])
        state["mask_calls"] = torch.zeros((), dtype=torch.int64)  # no published file has it
        return state


def read_published(path: str | Path) -> Published:
    """Read and check a published checkpoint.

    Optimizer, scaler, epoch, loss, configuration and prompts are optional. PublishedError says what
    is wrong with a file that is truncated, damaged, foreign or holds code, and names the first key,
    tensor, shape or dtype that differs. FileNotFoundError where there is none. The whole file is
    read once, to verify its checksums, but not kept in memory; it must stay unchanged while its
    tensors are in use.
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
    content = content | sections
    if "config" in content:
        content["config"] = without_tokens(content["config"])
    return Published(path, {key: content[key] for key in KEYS if key in content}, dims)


def _opened(path: Path) -> dict[str, Any]:
    """The dictionary in the file, its tensors mapped."""
    if not zipfile.is_zipfile(path):
        raise PublishedError(_no_archive(path))
    try:
        _check_records(path)
        # mmap: a tensor takes memory when it is read, not when the file is opened
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


def _no_archive(path: Path) -> str:
    """What is wrong with a file that is no whole zip archive."""
    with open(path, "rb") as file:
        begin = file.read(4)
    kind = "no zip archive"
    if begin == b"PK\3\4":
        kind = "truncated: it has the beginning of an archive and no end"
    return f"it is {kind} (first bytes {begin!r}); torch.save writes zip archives"


def _check_records(path: Path) -> None:
    """PublishedError for an archive with a record that is compressed or fails its checksum."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise PublishedError(f"its record `{entry.filename}` is compressed")
        if damaged := archive.testzip():
            raise PublishedError(f"its record `{damaged}` is damaged (wrong checksum)")


def _unreadable(path: Path, error: Exception) -> str:
    """Why torch cannot read an archive: the code that it holds, or torch's own words."""
    try:
        code = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # then it is no pickle at all
        code = []
    if code:
        return f"it holds `{code[0]}`, which is code and not weights; nothing of it was run"
    return f"torch cannot read it as weights ({str(error).splitlines()[0][:200]})"


def _sections(content: dict[str, Any]) -> Sections:
    """The sections of tensors, without the `module.` of DistributedDataParallel."""
    for key in content:
        if key not in KEYS:
            raise PublishedError(f"unknown key {key!r}; it has {', '.join(KEYS)}")
    for key in REQUIRED:
        if not isinstance(content.get(key), dict) or not content[key]:
            raise PublishedError(f"key {key!r} is missing or no state dict")
    sections = {}
    for section in KEYS:
        if section not in SECTIONS or section not in content:
            continue
        tensors = content[section]
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not _is_plain(tensor):
                kind = type(tensor).__name__
                raise PublishedError(f"{section}: `{name}` is no plain tensor ({kind})")
        if all(name.startswith("module.") for name in tensors):
            tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        sections[section] = dict(tensors)
    return sections


def _is_plain(value: Any) -> bool:
    """A tensor that is dense and lies in memory as it is read (not sparse, not stretched)."""
    return isinstance(value, Tensor) and value.is_contiguous()


def _check_rest(content: dict[str, Any], dims: Dims) -> None:
    """What no forecast reads: prompt embeddings, and the state of an optimizer."""
    hidden, pooled = PROMPTS
    _check_prompt(hidden, content.get(hidden), (1, None, dims.joint_dim))
    _check_prompt(pooled, content.get(pooled), (1, dims.pooled_dim))
    optimizer = content.get("optimizer")
    if optimizer is None:
        return
    if not isinstance(optimizer, dict) or not optimizer.keys() >= {"state", "param_groups"}:
        raise PublishedError(
            "`optimizer` is no state of an optimizer: it has no `state` and `param_groups`"
        )


def _check_prompt(name: str, value: Any, wanted: tuple[int | None, ...]) -> None:
    """PublishedError unless a prompt embedding, if it is there, has a shape; None: any length."""
    if value is None:
        return
    shape = tuple(getattr(value, "shape", ()))
    fits = len(shape) == len(wanted)
    for size, wanted_size in zip(shape, wanted, strict=False):
        fits = fits and wanted_size in (None, size)
    if not fits:
        message = f"`{name}` has shape {shape}, expected {wanted}"
        raise PublishedError(message.replace("None", "L"))


def write_published(content: Mapping[str, Any], path: str | Path) -> Path:
    """Write a checkpoint in the published layout and return its path.

    Of `content` the keys of the layout, in its order, without access tokens. The file appears only
    when it is complete; equal contents give equal bytes. Raises whatever the disk raises.
    """
    path = Path(path)
    ordered = {key: content[key] for key in KEYS if key in content}
    if "config" in ordered:
        ordered["config"] = without_tokens(ordered["config"])
    with replaced(path, sync=True) as part, open(part, "wb") as file:
        torch.save(ordered, file)  # a name in place of a file would become part of the content
    return path


def without_tokens(value: Any) -> Any:
    """Plain data without what looks like a secret.

    That is a text under a key such as hf_token, and a text that begins as a token does. What JSON
    has no form for becomes its text.
    """
    if isinstance(value, Mapping):
        plain = {}
        for name, item in value.items():
            item = without_tokens(item)
            if not _is_secret(str(name), item):
                plain[str(name)] = item
        return plain
    if isinstance(value, list | tuple):
        return [without_tokens(item) for item in value if not _is_secret("", item)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _is_secret(name: str, value: Any) -> bool:
    return isinstance(value, str) and bool(_SECRET.search(name) or re.match(r"hf_\w{8,}", value))
