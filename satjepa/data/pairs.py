"""Patch pairs (t, t+1) of the cubes as a torch Dataset, and the batch every other part of the
project reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from satjepa.contracts import Captions, PatchKey
from satjepa.data.cube import open_cube
from satjepa.data.places import Place, Window, as_rgb, augmentation
from satjepa.data.scenes import year_pairs
from satjepa.data.splits import SplitPart, windows

if TYPE_CHECKING:
    import xarray as xr


class Texts(Protocol):
    """A store of text embeddings, such as `satjepa.captions.store.TextStore`."""

    def number(self, text: str) -> int:
        """The number under which the store has a text; KeyError where it has not."""

    def gather(self, numbers: Tensor, lengths: Sequence[int]) -> dict[str, Tensor]:
        """Numbers (B,S) to hidden (B,S,L,D), mask (B,S,L) bool and pooled (B,S,P): the S-th text of
        a row cut or padded with zeros to `lengths[S]` tokens, L the largest of `lengths`.
        """


class PairDataset(Dataset):
    """All patches of a part of a split, each a pair of consecutive years; `collate` makes the
    project's batch of them.

    cubes       opened cubes or their paths; a cube is read when its first sample is, and kept as
                stored (uint8, int8).
    split_part  `split.part(name)`; None takes every pair of years of every cube.
    patch       side in pixels; windows lie on a grid of `stride` pixels (default: patch). The
                windows of "val" and "test" never overlap, nor do those of a published split: there
                the stride is the patch.
    history     number of earlier years, t-1 first, back to the first gap. One that is absent, or
                valid in less than `min_valid` of the window, is all zero with history_valid False.
    augment     turn and mirror training windows (`d4`), each by `augmentation(region, x, y)`. Only
                windows of "train" in a region split: elsewhere the same image may be scored too,
                and its captions exist only once.
    truth       add oracle_mean, oracle_sample and process, if there is truth for every sample.
    captions    the three texts of an image by its key (`satjepa.captions.table.lookup`); with
                `text`, the store of their embeddings, and `lengths`, the tokens that each of
                CAPTION_KINDS is cut or padded to.
    latents     (preset, region, year, x, y) -> (C, h, w) of the image as `image` gives it: a
                function, or anything with [].
    min_valid   windows with a smaller share of valid pixels in t or t+1 are left out and counted in
                `dropped`.

    `samples` lists (cube, position of t, x, y); `split_hash` is the sha256 of the split. Raises
    ValueError if none is left, if the split was drawn for another patch, if only one of captions
    and text is given, or if an image has no caption.
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
        captions: Mapping[PatchKey, Captions] | None = None,
        text: Texts | None = None,
        lengths: tuple[int, int, int] = (48, 48, 48),
        latents: Callable[[PatchKey], Any] | Mapping[PatchKey, Any] | None = None,
        min_valid: float = 0.5,
    ) -> None:
        self.places = [
            Place(open_cube(cube) if isinstance(cube, str | Path) else cube) for cube in cubes
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
        self.lengths = lengths
        self.latents = getattr(latents, "__getitem__", latents)
        if (captions is None) != (text is None):
            raise ValueError(
                "captions (the table) and text (the store of their embeddings) come together"
            )
        self._numbers = {} if captions is None else self._number(captions)

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

    def _number(self, captions: Mapping[PatchKey, Captions]) -> dict[PatchKey, list[int]]:
        """The numbers in the store of the three texts of every image; ValueError names the first
        image without.
        """
        keys = self.keys()
        if lost := [key for key in keys if key not in captions]:
            raise ValueError(
                f"no caption for {len(lost)} images, first {tuple(lost[0])}: run the caption stage "
                "again"
            )
        return {key: list(map(self.text.number, captions[key])) for key in keys}

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
        """The different images that the samples show at t or t+1, sorted."""
        shown = {key for index in range(len(self)) for key in self._keys_of(index)}
        return [PatchKey(*key) for key in sorted(shown)]

    def _keys_of(self, index: int) -> tuple[tuple, tuple]:
        """The images of t and of t+1 of a sample."""
        m = self.meta(index)
        t, tp1 = (
            (m["preset"], m["region"], year, m["x"], m["y"]) for year in (m["year"], m["year"] + 1)
        )
        return t, tp1

    def image(self, key: PatchKey) -> tuple[Tensor, Tensor]:
        """One image by its key, as the samples show it: rgb (3,H,W) float32 in [0,1] and valid
        (1,H,W) bool.
        """
        preset, region, year, x, y = key
        place = next(p for p in self.places if (p.preset, p.region) == (preset, region))
        aug = augmentation(region, x, y) if self.augment else 0
        return place.image(place.years.index(year), Window(x, y, self.patch, aug))

    def load(self) -> None:
        """Read all that the samples show: processes forked from this one share that memory."""
        shown = {sample[0] for sample in self.samples}
        names = ["rgb", "valid", "emb"]
        names += ["oracle_mean", "oracle_sample", "process"] if self.truth else []
        for place in (self.places[number] for number in shown):
            for name in names:
                if name in place.cube:
                    place[name]

    def pixels(self, index: int) -> dict[str, Any]:
        """Sample `index` without its words."""
        meta = self.meta(index)
        number, i, x, y = self.samples[index]
        place = self.places[number]
        window = Window(x, y, self.patch, meta["aug"])
        sample: dict[str, Any] = {"meta": meta}
        sample["rgb_t"], sample["valid_t"] = place.image(i, window)
        sample["rgb_tp1"], sample["valid_tp1"] = place.image(i + 1, window)
        sample["emb_tp1"], sample["emb_valid"] = place.embedding(i + 1, window)
        sample["history"], sample["history_valid"] = self._history(place, i, window)
        if self.truth:
            for name in ("oracle_mean", "oracle_sample"):
                sample[name] = as_rgb(window.cut(place[name][i + 1]))
            sample["process"] = torch.from_numpy(window.cut(place["process"][i + 1]))[None]
        if self.latents is not None:
            sample["latent_tp1"] = torch.as_tensor(self.latents(self._keys_of(index)[1]))
        return sample

    def words(self, indices: Sequence[int]) -> Tensor:
        """The texts of B samples, as the numbers (2,B,3) of `text.gather`: those of t, of t+1."""
        numbers = []
        for index in indices:
            now, ahead = self._keys_of(index)
            numbers.append([self._numbers[now], self._numbers[ahead]])
        return torch.tensor(numbers).transpose(0, 1).contiguous()  # (B,2,3) -> (2,B,3)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, the batch of `collate` without its first dimension."""
        sample = self.pixels(index)
        if self.text is not None:
            for name, numbers in zip(("text_t", "text_tp1"), self.words([index]), strict=True):
                rows = self.text.gather(numbers, self.lengths)  # of one row
                sample[name] = {part: value[0] for part, value in rows.items()}
        return sample

    def _history(self, place: Place, i: int, window: Window) -> tuple[Tensor, Tensor]:
        images = torch.zeros(self.history, 3, self.patch, self.patch)
        present = torch.zeros(self.history, dtype=torch.bool)
        for lag in range(1, self.history + 1):
            if i < lag or place.years[i - lag] != place.years[i] - lag:
                break  # the first year, or a gap
            image, valid = place.image(i - lag, window)
            if valid.float().mean() >= self.min_valid:
                images[lag - 1] = image
                present[lag - 1] = True
        return images, present


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
        if name == "meta":
            batch[name] = values
        elif isinstance(first, Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = {}
            for part in first:
                batch[name][part] = torch.stack([value[part] for value in values])
    return batch


def spread_evenly(count: int, limit: int) -> list[int]:
    """`limit` of the numbers 0 .. count - 1 at even distances, all of them where `limit` is 0 or
    not below `count`.
    """
    if limit == 0 or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]
