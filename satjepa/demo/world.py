"""The demo world: a procedural land that changes from year to year, in part as can be foreseen.

Its best forecast is known exactly. Every object of the land (field, forest stand, town block,
reservoir) is a Markov chain over a few states that can be *seen*:

    field      rape -> wheat -> maize -> fallow -> rape, with breaks; meadows and orchards stay
    stand      forest -> cut (beside a fresh cut) -> shrub -> young -> forest
               forest -> dry -> burnt -> shrub
    block      open -> building site (beside the town, along roads) -> built
    reservoir  its water line climbs or falls by one step; a marsh or a mud belt shows which

`Land.transition()` is the one definition of that: `advance` samples from it, and `expected_cover`
is its exact mean, the **oracle**: the cover next year in expectation, given the full state. Images
and embeddings of them are made in `satjepa.demo.render`.

All arithmetic is float64, so that the rounding to 8 bits gives the same pixels on every machine.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

from satjepa.demo.terrain import cells, fractal, parcels, river, roads, stream

CLASSES = (
    "water", "forest", "cut", "shrub", "young", "dry", "burnt", "rape", "wheat", "maize", "fallow",
    "meadow", "orchard", "site", "built", "road", "mud", "marsh",
)  # fmt: skip
INDEX = {name: i for i, name in enumerate(CLASSES)}
FIELD = ("rape", "wheat", "maize", "fallow", "meadow", "orchard")
STAND = ("forest", "cut", "shrub", "young", "dry", "burnt")
BLOCK = ("open", "site", "built")
PROCESSES = ("none", "crop", "forest", "town", "water", "fire")
LEVELS = 8  # steps of a reservoir's water line


@dataclass(frozen=True)
class Climate:
    """How fast a land changes and how loud its weather is, as explained in `world.yaml`."""

    permanent: float
    rotation: float
    cutting: float
    drought: float
    building: float
    filling: float
    weather: float

    @classmethod
    def of(cls, preset: dict) -> Climate:
        """The climate of a preset of the recipe, which also names its parts."""
        return cls(**{key: value for key, value in preset.items() if key != "parts"})


class Land:
    """One region: fixed geometry, and the state of its objects in one year.

    Args:
        key: seed of everything (any hashable text-able parts, for example world seed, preset,
            region).
        size: pixels a side.
        climate: how fast it changes.
    """

    def __init__(self, key: tuple, size: int, climate: Climate) -> None:
        self.key = key
        self.size = size
        self.climate = climate
        rng = stream(*key, "geometry")
        relief = gaussian_filter(fractal(rng, size, 3.2), 2)
        self.parcel, fields = parcels(rng, size)
        wooded = gaussian_filter(0.7 * relief + 0.7 * fractal(rng, size, 2.8), 2)
        self.forest = wooded > rng.uniform(0.3, 0.9)
        warp = 3.0 * np.stack([fractal(rng, size, 2.6), fractal(rng, size, 2.6)])
        stand_at = rng.uniform(0, size, (int((size / 22) ** 2), 2))
        block_at = rng.uniform(0, size, (int((size / 10) ** 2), 2))
        self.stand = cells(stand_at, size, warp)
        self.block = cells(block_at, size)
        self.stand_near = _neighbours(stand_at)
        self.block_near = _neighbours(block_at)
        town = rng.uniform(0.2 * size, 0.8 * size, 2)
        self.road = roads(rng, size, town)
        self.river = river(rng, size)
        to_road = distance_transform_edt(~self.road)
        self.block_road = to_road[tuple(block_at.astype(int).T)]  # of each block, pixels to a road
        self.shore = _shore(rng, size)
        self.climb = int(rng.choice([-1, 1]))  # of the water line, a step a year
        to_town = np.hypot(*(block_at - town).T)  # of each block, pixels
        self._first_year(stream(*key, "start"), fields, len(stand_at), to_town)

    def _first_year(
        self, rng: np.random.Generator, fields: int, stands: int, to_town: np.ndarray
    ) -> None:
        """States at the start: numbers in FIELD, STAND and BLOCK. The order of draws is fixed."""
        permanent = rng.random(fields) < self.climate.permanent
        meadow_or_orchard = rng.choice([4, 4, 5], fields)
        crop = rng.integers(0, 4, fields)
        self.field = np.where(permanent, meadow_or_orchard, crop)
        busy = np.sqrt(self.climate.cutting / 0.3)
        disturbed = rng.random(stands) < 0.4 * busy
        self.wood = np.where(disturbed, rng.choice([1, 1, 2, 3, 4], stands), 0)
        self.town = np.where(to_town < rng.uniform(14, 32), 2, 0)
        farmstead = (self.block_road < 9) & (rng.random(len(to_town)) < 0.10)
        self.town = np.where(farmstead, 2, self.town)
        lowest, beyond = (2, 4) if self.climb > 0 else (LEVELS - 3, LEVELS - 1)
        self.level = int(rng.integers(lowest, beyond))
        # One step of the town, so that the first year has building sites to be seen.
        self.town = _sample(rng, self._town_odds())

    def _field_odds(self) -> np.ndarray:
        """(F,6): crops rotate, meadows and orchards stay."""
        table = np.eye(6)
        rotate = self.climate.rotation
        for crop in range(4):
            table[crop, :4] = (1 - rotate) / 3
            table[crop, (crop + 1) % 4] = rotate
        return table[self.field]

    def _wood_odds(self) -> np.ndarray:
        """(S,6): cut -> shrub -> young -> forest; forest -> dry -> burnt -> shrub."""
        table = np.eye(6)[[0, 2, 3, 0, 5, 2]]
        # One dry stand in four recovers.
        table[4] = 0.75 * table[4] + 0.25 * np.eye(6)[0]
        odds = table[self.wood]
        beside_cut = (self.wood[self.stand_near] == 1).any(1)
        cut = np.where(beside_cut, self.climate.cutting, 0.05 * self.climate.cutting)
        standing = self.wood == 0
        odds[standing, 1] = cut[standing]
        odds[standing, 4] = self.climate.drought
        odds[standing, 0] = 1 - cut[standing] - self.climate.drought
        return odds

    def _town_odds(self) -> np.ndarray:
        """(B,3): open -> site, sooner beside the town and along roads; site -> built."""
        building = self.climate.building
        built = (self.town[self.block_near] == 2).sum(1)  # of each block, built neighbours
        along_road = np.where(built >= 1, building, 0.04 * building)
        away = np.where(built >= 2, 0.4 * building, 0.0)
        start = np.where(self.block_road < 14, along_road, away)
        odds = np.eye(3)[[0, 2, 2]][self.town]
        free = self.town == 0
        odds[free, 0] = 1 - start[free]
        odds[free, 1] = start[free]
        return odds

    def transition(self) -> dict[str, np.ndarray]:
        """Probability of each state of each object next year.

        field (F,6), wood (S,6), town (B,3), level (LEVELS,).
        """
        level = np.zeros(LEVELS)
        next_level = int(np.clip(self.level + self.climb, 1, LEVELS - 1))
        level[self.level] += 1 - self.climate.filling
        level[next_level] += self.climate.filling
        return {
            "field": self._field_odds(),
            "wood": self._wood_odds(),
            "town": self._town_odds(),
            "level": level,
        }

    def advance(self, rng: np.random.Generator) -> Land:
        """The same land one year later, its objects drawn from `transition()`."""
        odds = self.transition()
        later = copy.copy(self)
        later.field = _sample(rng, odds["field"])
        later.wood = _sample(rng, odds["wood"])
        later.town = _sample(rng, odds["town"])
        later.level = int(_sample(rng, odds["level"][None])[0])
        return later

    def cover(self) -> np.ndarray:
        """(18, size, size) one-hot: the class of each pixel this year."""
        return self._compose(
            np.eye(6)[self.field],
            np.eye(6)[self.wood],
            np.eye(3)[self.town],
            np.eye(LEVELS)[self.level],
        )

    def expected_cover(self) -> np.ndarray:
        """(18, size, size): probability of each class of each pixel next year, given the state."""
        odds = self.transition()
        return self._compose(odds["field"], odds["wood"], odds["town"], odds["level"])

    def _compose(
        self, field: np.ndarray, wood: np.ndarray, town: np.ndarray, level: np.ndarray
    ) -> np.ndarray:
        """Objects drawn over each other: fields and forest, town, roads, reservoir, river.

        Exact for independent objects.
        """
        cover = np.zeros((len(CLASSES), self.size, self.size))
        for i, name in enumerate(FIELD):
            cover[INDEX[name]] = field[:, i][self.parcel] * ~self.forest
        for i, name in enumerate(STAND):
            cover[INDEX[name]] = wood[:, i][self.stand] * self.forest
        forest = self.forest[..., None]
        town_here = town[self.block] * ~forest + np.eye(3)[0] * forest  # (H,W,3); none in a forest
        cover *= town_here[..., 0]
        cover[INDEX["site"]] = town_here[..., 1]
        cover[INDEX["built"]] = town_here[..., 2]
        cover = _lay(cover, "road", self.road)
        wet = sum(p * (self.shore < k) for k, p in enumerate(level))
        belt = sum(p * (self.shore == k) for k, p in enumerate(level))
        cover *= 1 - wet - belt
        cover[INDEX["water"]] += wet
        # What a rising water line leaves is wet, what a falling one leaves is bare.
        cover[INDEX["marsh" if self.climb > 0 else "mud"]] += belt
        return _lay(cover, "water", self.river)


def _neighbours(points: np.ndarray, count: int = 6) -> np.ndarray:
    """Of each point (n,2), the numbers of its `count` nearest other points: (n,count)."""
    _, numbers = cKDTree(points).query(points, count + 1)
    return numbers[:, 1:]  # the nearest is the point itself


def _shore(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) int: the level above which a pixel is under water; three regions in four."""
    centre = rng.uniform(0.15 * size, 0.85 * size, 2)
    radius = rng.uniform(26, 50)
    y, x = np.mgrid[:size, :size]
    away = np.hypot(y - centre[0], x - centre[1]) / radius
    depth = away + 0.18 * gaussian_filter(fractal(rng, size, 2.6), 3)
    if rng.random() < 0.75:
        return np.floor((depth - 0.3) * LEVELS).astype(int)
    return np.full((size, size), 10 * LEVELS)  # no level is as high: no reservoir


def _lay(cover: np.ndarray, name: str, mask: np.ndarray) -> np.ndarray:
    """A cover (18,H,W) with one class put over it where `mask` (H,W) is set."""
    cover = cover * ~mask
    cover[INDEX[name]] += mask
    return cover


def _sample(rng: np.random.Generator, odds: np.ndarray) -> np.ndarray:
    """One state for each row of (objects, states) probabilities, (objects,) int."""
    draws = rng.random(len(odds))[:, None]
    return (draws > np.cumsum(odds, 1)[:, :-1]).sum(1)


def process_of_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What changed between two class maps (H, W) int: an index into `PROCESSES`, (H, W) uint8.

    0 where nothing did.
    """

    def touched(*names: str) -> np.ndarray:
        classes = [INDEX[name] for name in names]
        return np.isin(before, classes) | np.isin(after, classes)

    kind = np.full(before.shape, PROCESSES.index("crop"), np.uint8)
    kind[touched("forest", "cut", "shrub", "young", "dry")] = PROCESSES.index("forest")
    kind[touched("burnt")] = PROCESSES.index("fire")
    kind[touched("site", "built")] = PROCESSES.index("town")
    kind[touched("water", "mud", "marsh")] = PROCESSES.index("water")
    return np.where(before == after, 0, kind).astype(np.uint8)
