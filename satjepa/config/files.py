"""Params files: params.yaml, and overlays of what differs from it.

An overlay says `base: params.yaml` and then only what is different: a mapping is merged key by key,
anything else takes the place of what stood there, and an arm that is null is left out.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from satjepa.config import yaml12
from satjepa.config.errors import ConfigError, in_words, unknown_key
from satjepa.config.params import Params, from_dict
from satjepa.paths import root

BASE = "base"
# What an arm may change: of captions and the backbone's weights all arms have the same, made once.
OF_ARMS = ("backbone.layout", "backbone.lora_", "loss.", "model.", "train.")
ARMS = (("arms",), ("baselines", "arms"))  # where null leaves an entry out


def load_params(
    path: str | Path | None = None, arm: str | None = None, seed: int | None = None, **dotted: Any
) -> Params:
    """Read and check a params file: `load_params(arm="no_jepa", **{"train.steps": 4})`.

    path: default $SATJEPA_PARAMS (relative to the repository root), else params.yaml of the root.
    arm: one of `arms`: the file with that arm's own values.
    seed, dotted: override last; a seed of None leaves the file's.
    Every arm of the file is checked, whichever is asked for. Raises ConfigError.
    """
    if path is None:
        path = root() / os.environ.get("SATJEPA_PARAMS", "params.yaml")
    path = Path(path)
    try:
        values = read_params(path)
        params = from_dict(values)
        require_fitting_layout(params)
        arms = params.arms
        of_arms = {name: _with_arm(values, name) for name in arms}
        if arm is not None:
            values = of_arms[arm] if arm in arms else _no_such_arm(arm, arms)
    except ConfigError as error:
        error.source = path
        raise
    params = from_dict(with_keys(values, dotted if seed is None else {"seed": seed} | dotted))
    require_fitting_layout(params)
    return params


def require_fitting_layout(params: Params) -> None:
    """ConfigError if the layout tokens that the adapter starts from are of another size of patch,
    as those of the shipped backbone are. Nothing to check where there are none, or not yet.
    """
    file = Path(params.backbone.layout or "") / "layout.safetensors"
    if not file.is_absolute():
        file = root() / file
    if params.backbone.layout is None or not file.is_file():
        return
    with open(file, "rb") as weights:  # the header alone: no torch, no weights
        header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
    places = header["positions"]["shape"][0]
    side = params.data.patch // params.model.encoder.patch
    if side**2 != places:
        fits = math.isqrt(places) * params.model.encoder.patch
        accepted = (
            f"{fits}, as {params.backbone.layout} has {places} layout tokens, or another size with"
            " backbone.layout: null and a backbone for it"
        )
        raise ConfigError("data.patch", in_words(params.data.patch), accepted)


def read_params(path: Path) -> Any:
    """The plain values of a params file, an overlay merged into its base. Raises ConfigError."""
    values = read_yaml(path)
    if not isinstance(values, dict) or BASE not in values:
        return values
    base = values.pop(BASE)
    file = path.with_name(base) if isinstance(base, str) and base else path
    below = None if file == path else read_yaml(file)
    if not isinstance(below, dict) or BASE in below:
        accepted = "the name of a params file beside this one that has no base itself"
        raise ConfigError(BASE, in_words(base), accepted)
    return merged(below, values)


def merged(base: dict[str, Any], changes: Mapping[str, Any], where: tuple[str, ...] = ()) -> Any:
    """`base` with `changes`: mappings key by key, all else replaced, null arms left out.

    ConfigError for an arm to be left out that is not there.
    """
    result = dict(base)
    for key, value in changes.items():
        if value is None and where in ARMS:
            if key not in base:
                accepted = f"one of {', '.join(base)}, to leave it out"
                raise ConfigError(".".join((*where, key)), "null", accepted)
            del result[key]
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value, (*where, key))
        else:
            result[key] = copy.deepcopy(value)
    return result


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises ConfigError where there is none, or it is not YAML."""
    try:
        return yaml12.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("(file)", "no such file", "a YAML file") from None
    except yaml12.YamlError as error:
        raise ConfigError("(file)", str(error), "YAML") from None


def with_keys(values: dict[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the nested `values` in which each dotted key has its new value.

    Unknown ones are refused when the result is checked, or at once where they lead through a value.
    """
    tree = copy.deepcopy(values)
    for key, value in dotted.items():
        *sections, leaf = key.split(".")
        node = tree
        for name in sections:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise unknown_key(Params, key)
        node[leaf] = value
    return tree


def _with_arm(values: dict[str, Any], arm: str) -> dict[str, Any]:
    """The values of an arm. ConfigError, its key from `arms` on, for a wrong one."""
    try:
        for key, value in values["arms"][arm].items():
            if not key.startswith(OF_ARMS):
                sections = ", ".join(f"{start}*" for start in OF_ARMS)
                accepted = f"{sections}: an arm changes what is trained, and nothing else"
                raise ConfigError(key, repr(value), accepted)
        changed = with_keys(values, values["arms"][arm])
        require_fitting_layout(from_dict(changed))
    except ConfigError as error:
        error.key = f"arms.{arm}.{error.key}"
        raise
    return changed


def _no_such_arm(arm: str, arms: Mapping[str, Any]) -> NoReturn:
    nearest = difflib.get_close_matches(arm, arms, 1)
    hint = f"arms.{nearest[0]}" if nearest else None
    raise ConfigError("arms", repr(arm), ", ".join(arms), hint)
