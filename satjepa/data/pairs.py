"""Patch pairs (t, t+1) of the cubes as a torch Dataset, and the batch every other part of the
project reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from satjepa.contracts import CAPTION_KINDS, PatchKey
from satjepa.data.alphaearth import BANDS, MASKED, decode_alphaearth
from satjepa.data.cube import open_cube
from satjepa.data.scenes import year_pairs
from satjepa.data.splits import SplitPart, windows

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


Array = TypeVar("Array", np.ndarray, torch.Tensor)


def d4(array: Array, aug: int) -> Array:
    """One of the 8 symmetries of the square, on the last two axes of a numpy array or a tensor.

    Mirrored left-right if `aug` >= 4, then turned by `aug` % 4 quarters, counter-clockwise. 0 is
    the identity.
    """
    lib = torch if isinstance(array, torch.Tensor) else np
    return lib.rot90(lib.flip(array, (-1,)) if aug >= 4 else array, aug % 4, (-2, -1))


def d4_inverse(array: Array, aug: int) -> Array:
    """Undo `d4` with the same `aug`."""
    lib = torch if isinstance(array, torch.Tensor) else np
    turned = lib.rot90(array, -aug % 4, (-2, -1))
    return lib.flip(turned, (-1,)) if aug >= 4 else turned


def augmentation(region: str, x: int, y: int) -> int:
    """The symmetry (0..7) of a training window: a hash of its place, so the same in every year,
    preset and run.
    """
    return hashlib.sha256(f"{region}/{x}/{y}".encode()).digest()[0] % 8


class Texts(Protocol):
    """A store of text embeddings, such as `satjepa.captions.embeddings.TextStore`."""

    def batch(self, texts: Sequence[Sequence[str]], max_length: int) -> dict[str, torch.Tensor]:
        """B x 3 texts to hidden (B,3,L,D), mask (B,3,L) bool and pooled (B,3,P), cut or padded to
        `max_length` tokens.
        """


class _Place:
    """The arrays of one cube, each read at first use and then shared by all samples."""

    def __init__(self, cube: xr.Dataset) -> None:
        self.cube = cube
        self.region = cube.attrs["region"]
        self.preset = cube.attrs["preset"]
        self.shape = cube.sizes["y"], cube.sizes["x"]
        self.years = cube["year"].values.tolist()
        self._arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = self.cube[
                name
            ].values  # xarray keeps the same array: one copy in memory
        return self._arrays[name]

    def valid_share(self, patch: int, corners: list[tuple[int, int]]) -> np.ndarray:
        """Share of valid pixels (years, windows) of windows of `patch` pixels at `corners` (x,
        y).
        """
        total = np.pad(
            self["valid"].cumsum(1, np.int32).cumsum(2, np.int32), ((0, 0), (1, 0), (1, 0))
        )
        x, y = np.array(corners, int).reshape(-1, 2).T
        count = (
            total[:, y + patch, x + patch]
            - total[:, y, x + patch]
            - total[:, y + patch, x]
            + total[:, y, x]
        )
        return count / patch**2


class PairDataset(Dataset):
    """All patches of a part of a split, each a pair of consecutive years; `collate` makes the
    project's batch of them.

    cubes      opened cubes or their paths; a cube is read when its first sample is, and kept as
    stored (uint8, int8). split_part `split.part(name)`; None takes every pair of years of every
    cube.
    patch      side in pixels; windows lie on a grid of `stride` pixels (default: patch). The
    windows of "val" and
               "test" never overlap, nor do those of a published split: there the stride is the
               patch.
    history    number of earlier years, t-1 first, back to the first gap. One that is absent, or
    valid in less than
               `min_valid` of the window, is all zero with history_valid False.
    augment    turn and mirror training windows (`d4`), each by `augmentation(region, x, y)`. Only
    windows of "train" in
               a region split: elsewhere the same image may be scored too, and its captions exist
                   only once.
    truth      add oracle_mean, oracle_sample and process, if there is truth for every sample.
    captions   table with preset, region, year, x, y, informative, geometric, semantic: one row an
    image; with `text`, a
               `TextStore`, and the `max_length` in tokens to pad to.
    latents    (preset, region, year, x, y) -> (C, h, w) of the image as `image` gives it: a
    function, or anything
               with [].
    min_valid  windows with a smaller share of valid pixels in t or t+1 are left out and counted in
    `dropped`.

    `samples` lists (cube, position of t, x, y); `split_hash` is the sha256 of the split. Raises
    ValueError if none is left, if the split was drawn for another patch, if only one of captions
    and text is given, or if an image has no caption, or two.
    """

    def __init__(
        self,
        cubes: Iterable[xr.Dataset | str | Path],
        split_part: SplitPart | None,
        patch: int,
        stride: int | None = None,
        history: int = 0,
        augment: bool = False,
        *,
        truth: bool = False,
        captions: pd.DataFrame | None = None,
        text: Texts | None = None,
        max_length: int = 48,
        latents: Callable[[PatchKey], Any] | Mapping[PatchKey, Any] | None = None,
        min_valid: float = 0.5,
    ) -> None:
        self.places = [
            _Place(open_cube(cube) if isinstance(cube, str | Path) else cube) for cube in cubes
        ]
        self.patch = patch
        self.history = history
        self.min_valid = min_valid
        self.augment = (
            augment
            and split_part is not None
            and (split_part.name, split_part.kind) == ("train", "region")
        )
        self.split_hash = split_part.split if split_part is not None else ""
        self.dropped = 0
        self.samples = self._find_samples(split_part, stride or patch)
        self.truth = truth and all(self._has_truth(*sample[:2]) for sample in self.samples)
        self.text = text
        self.max_length = max_length
        self.latents = getattr(latents, "__getitem__", latents)
        if (captions is None) != (text is None):
            raise ValueError(
                "captions (the table) and text (the store of their embeddings) come together"
            )
        self.captions = None if captions is None else self._match(captions)

    def _find_samples(self, part: SplitPart | None, stride: int) -> list[tuple[int, int, int, int]]:
        if part is not None and part.patch not in (None, self.patch):
            raise ValueError(
                f"the split was drawn for patches of {part.patch} pixels, not {self.patch}"
            )
        overlap = part is None or (part.name == "train" and part.kind != "published")
        samples = []
        for number, place in enumerate(self.places):
            corners = windows(place.shape, self.patch, stride if overlap else self.patch)
            pairs = [place.years.index(year) for year, _ in year_pairs(place.years)]
            wanted = [
                (number, i, w, x, y)
                for i in pairs
                for w, (x, y) in enumerate(corners)
                if part is None or part.allows(place.region, place.years[i], x, y)
            ]
            share = place.valid_share(self.patch, corners) if wanted else None
            kept = [
                (n, i, x, y)
                for n, i, w, x, y in wanted
                if share[i : i + 2, w].min() >= self.min_valid
            ]
            self.dropped += len(wanted) - len(kept)
            samples += kept
        if not samples:
            name = "all" if part is None else f"{part.name} of a split of kind {part.kind}"
            raise ValueError(
                f"no sample: {len(self.places)} cubes, part {name}, patches of {self.patch} "
                f"pixels; {self.dropped} of"
                f" them valid in less than {self.min_valid:g}. Needed: two consecutive years of "
                "one place"
            )
        return samples

    def _has_truth(self, number: int, i: int) -> bool:
        place = self.places[number]
        return "has_truth" in place.cube and bool(place["has_truth"][i + 1])

    def _match(self, table: pd.DataFrame) -> dict[PatchKey, list[str]]:
        """Captions of every image of the samples; ValueError names the first without, or with
        two.
        """
        keys = list(
            zip(
                *(table[name].tolist() for name in ("preset", "region", "year", "x", "y")),
                strict=True,
            )
        )
        captions = dict(zip(keys, table[list(CAPTION_KINDS)].values.tolist(), strict=True))
        if len(captions) != len(keys):
            twice = next(key for key in captions if keys.count(key) > 1)
            raise ValueError(
                f"two captions for {twice}: keep one captioner and prompt_version of the table"
            )
        if lost := [key for key in self.keys() if key not in captions]:
            raise ValueError(
                f"no caption for {len(lost)} images, first {lost[0]}: run the caption stage again"
            )
        return captions

    def __len__(self) -> int:
        return len(self.samples)

    def meta(self, index: int) -> dict[str, str | int]:
        """Where sample `index` lies: region, year (of t), x, y, preset, aug (0..7); reads no
        pixels.
        """
        number, i, x, y = self.samples[index]
        place = self.places[number]
        aug = augmentation(place.region, x, y) if self.augment else 0
        return {
            "region": place.region,
            "year": place.years[i],
            "x": x,
            "y": y,
            "preset": place.preset,
            "aug": aug,
        }

    def keys(self) -> list[PatchKey]:
        """The different images (preset, region, year, x, y) that the samples show at t or t+1,
        sorted.
        """
        metas = [self.meta(index) for index in range(len(self))]
        return sorted(
            {
                (m["preset"], m["region"], m["year"] + lag, m["x"], m["y"])
                for m in metas
                for lag in (0, 1)
            }
        )

    def image(self, key: PatchKey) -> tuple[torch.Tensor, torch.Tensor]:
        """One image by its key, as the samples show it: rgb (3,H,W) float32 in [0,1] and valid
        (1,H,W) bool.
        """
        preset, region, year, x, y = key
        place = next(p for p in self.places if (p.preset, p.region) == (preset, region))
        aug = augmentation(region, x, y) if self.augment else 0
        return self._image(place, place.years.index(year), x, y, aug)

    def _cut(self, array: np.ndarray, x: int, y: int, aug: int) -> np.ndarray:
        return np.ascontiguousarray(d4(array[..., y : y + self.patch, x : x + self.patch], aug))

    def _image(self, place: _Place, i: int, *where: int) -> tuple[torch.Tensor, torch.Tensor]:
        valid = torch.from_numpy(self._cut(place["valid"][i], *where))[None]
        return _rgb(self._cut(place["rgb"][i], *where)), valid

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, the batch of `collate` without its first dimension."""
        meta, (number, i, x, y) = self.meta(index), self.samples[index]
        place = self.places[number]
        where = (x, y, meta["aug"])
        sample: dict[str, Any] = {"meta": meta}
        sample["rgb_t"], sample["valid_t"] = self._image(place, i, *where)
        sample["rgb_tp1"], sample["valid_tp1"] = self._image(place, i + 1, *where)
        sample["emb_tp1"], sample["emb_valid"] = self._embedding(place, i + 1, *where)
        sample["history"], sample["history_valid"] = self._history(place, i, *where)
        if self.truth:
            for name in ("oracle_mean", "oracle_sample"):
                sample[name] = _rgb(self._cut(place[name][i + 1], *where))
            sample["process"] = torch.from_numpy(self._cut(place["process"][i + 1], *where))[None]
        before, after = (
            (place.preset, place.region, year, x, y) for year in (meta["year"], meta["year"] + 1)
        )
        if self.captions is not None:
            sample["text_t"], sample["text_tp1"] = self._embedded(before), self._embedded(after)
        if self.latents is not None:
            sample["latent_tp1"] = torch.as_tensor(self.latents(after))
        return sample

    def _embedding(self, place: _Place, i: int, *where: int) -> tuple[torch.Tensor, torch.Tensor]:
        if "emb" not in place.cube:
            return torch.zeros(BANDS, self.patch, self.patch), torch.zeros(
                1, self.patch, self.patch, dtype=torch.bool
            )
        q = self._cut(place["emb"][i], *where)
        return torch.from_numpy(decode_alphaearth(q)), torch.from_numpy((q != MASKED).all(0))[None]

    def _history(self, place: _Place, i: int, *where: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.zeros(self.history, 3, self.patch, self.patch)
        present = torch.zeros(self.history, dtype=torch.bool)
        for lag in range(1, self.history + 1):
            if i < lag or place.years[i - lag] != place.years[i] - lag:
                break  # the first year, or a gap
            image, valid = self._image(place, i - lag, *where)
            if valid.float().mean() >= self.min_valid:
                images[lag - 1], present[lag - 1] = image, True
        return images, present

    def _embedded(self, key: PatchKey) -> dict[str, torch.Tensor]:
        rows = self.text.batch([self.captions[key]], self.max_length)  # of one row
        return {name: value[0] for name, value in rows.items()}


def _rgb(values: np.ndarray) -> torch.Tensor:
    """uint8 (255 = 1.0) or float32 to a float32 tensor of its own."""
    scale = 255 if values.dtype == np.uint8 else 1
    return torch.from_numpy(values.astype(np.float32) / np.float32(scale))


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples to the one batch format of the project, B patches of HxW pixels:

    rgb_t, rgb_tp1 (B,3,H,W) float32 [0,1]; valid_t, valid_tp1 (B,1,H,W) bool, rgb is 0 where
    invalid; emb_tp1 (B,64,H,W) float32 of length 1, 0 where masked; emb_valid (B,1,H,W) bool;
    history (B,T,3,H,W), history_valid (B,T) bool;
    with truth: oracle_mean, oracle_sample (B,3,H,W), process (B,1,H,W) uint8;
    with captions: text_t, text_tp1 {"hidden" (B,3,L,D), "mask" (B,3,L) bool, "pooled" (B,3,P)} as
    in CAPTION_KINDS;
    with latents: latent_tp1 (B,C,h,w); meta: list of B dicts region, year (of t), x, y, preset,
    aug.
    """
    batch: dict[str, Any] = {}
    for name, first in samples[0].items():
        values = [sample[name] for sample in samples]
        if isinstance(first, torch.Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = (
                values
                if name == "meta"
                else {part: torch.stack([v[part] for v in values]) for part in first}
            )
    return batch


def spread_evenly(count: int, limit: int) -> list[int]:
    """`limit` of the numbers 0 .. count - 1 at even distances, all of them where `limit` is 0 or
    not below `count`.
    """
    return (
        list(range(count))
        if limit == 0 or limit >= count
        else [i * count // limit for i in range(limit)]
    )
