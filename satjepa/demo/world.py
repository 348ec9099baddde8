"""The demo world: a procedural land whose yearly change can be forecast in part, and whose best
forecast is known exactly.

Every object of the land (field, forest stand, town block, reservoir) is a Markov chain over a few
states that can be *seen*:
    field      rape -> wheat -> maize -> fallow -> rape, with breaks; meadows and orchards stay
    stand      forest -> cut (beside a fresh cut) -> shrub -> young -> forest;  forest -> dry ->
    burnt -> shrub
    block      open -> building site (beside the town, along roads) -> built
    reservoir  its water line climbs or falls by one step; a marsh or a mud belt shows which
`Land.transition()` is the one definition of that: `advance` samples from it, and `expected_cover`
is its exact mean,
the **oracle**: the cover next year in expectation, given the full state. What is drawn from them is
in `satjepa.demo.render`.

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
    "water",
    "forest",
    "cut",
    "shrub",
    "young",
    "dry",
    "burnt",
    "rape",
    "wheat",
    "maize",
    "fallow",
    "meadow",
    "orchard",
    "site",
    "built",
    "road",
    "mud",
    "marsh",
)
INDEX = {name: i for i, name in enumerate(CLASSES)}
FIELD = ("rape", "wheat", "maize", "fallow", "meadow", "orchard")
STAND = ("forest", "cut", "shrub", "young", "dry", "burnt")
BLOCK = ("open", "site", "built")
PROCESSES = ("none", "crop", "forest", "town", "water", "fire")
LEVELS = 8  # steps of a reservoir's water line


@dataclass(frozen=True)
class Climate:
    """How fast a land changes and how loud its weather is; the fields are explained in
    `world.yaml`.
    """

    permanent: float
    rotation: float
    cutting: float
    drought: float
    building: float
    filling: float
    weather: float


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
        self.forest = gaussian_filter(
            0.7 * relief + 0.7 * fractal(rng, size, 2.8), 2
        ) > rng.uniform(0.3, 0.9)
        warp = 3.0 * np.stack([fractal(rng, size, 2.6), fractal(rng, size, 2.6)])
        stand_at = rng.uniform(0, size, (int((size / 22) ** 2), 2))
        block_at = rng.uniform(0, size, (int((size / 10) ** 2), 2))
        self.stand = cells(stand_at, size, warp)
        self.block = cells(block_at, size)
        self.stand_near = cKDTree(stand_at).query(stand_at, 7)[1][:, 1:]
        self.block_near = cKDTree(block_at).query(block_at, 7)[1][:, 1:]
        town = rng.uniform(0.2 * size, 0.8 * size, 2)
        self.road = roads(rng, size, town)
        self.river = river(rng, size)
        to_road = distance_transform_edt(~self.road)
        self.block_road = to_road[tuple(block_at.astype(int).T)]
        centre = rng.uniform(0.15 * size, 0.85 * size, 2)
        radius = rng.uniform(26, 50)
        y, x = np.mgrid[:size, :size]
        depth = np.hypot(y - centre[0], x - centre[1]) / radius + 0.18 * gaussian_filter(
            fractal(rng, size, 2.6), 3
        )
        has_lake = rng.random() < 0.75
        self.shore = (
            np.floor((depth - 0.3) * LEVELS).astype(int)
            if has_lake
            else np.full((size, size), 10 * LEVELS)
        )
        self.climb = int(rng.choice([-1, 1]))
        self._first_year(
            stream(*key, "start"), fields, len(stand_at), np.hypot(*(block_at - town).T)
        )

    def _first_year(
        self, rng: np.random.Generator, fields: int, stands: int, to_town: np.ndarray
    ) -> None:
        permanent = rng.random(fields) < self.climate.permanent
        self.field = np.where(permanent, rng.choice([4, 4, 5], fields), rng.integers(0, 4, fields))
        busy = np.sqrt(self.climate.cutting / 0.3)
        self.wood = np.where(
            rng.random(stands) < 0.4 * busy, rng.choice([1, 1, 2, 3, 4], stands), 0
        )
        self.town = np.where(to_town < rng.uniform(14, 32), 2, 0)
        self.town = np.where(
            (self.block_road < 9) & (rng.random(len(to_town)) < 0.10), 2, self.town
        )
        self.level = (
            int(rng.integers(2, 4)) if self.climb > 0 else int(rng.integers(LEVELS - 3, LEVELS - 1))
        )
        self.town = _sample(
            rng, self._town_odds()
        )  # so that the first year has building sites to be seen

    def _field_odds(self) -> np.ndarray:
        table = np.eye(6)
        go = self.climate.rotation
        for crop in range(4):
            table[crop, :4] = (1 - go) / 3
            table[crop, (crop + 1) % 4] = go
        return table[self.field]

    def _wood_odds(self) -> np.ndarray:
        table = np.eye(6)[
            [0, 2, 3, 0, 5, 2]
        ]  # cut -> shrub -> young -> forest, dry -> burnt -> shrub
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
        built = (self.town[self.block_near] == 2).sum(1)
        along_road = np.where(built >= 1, self.climate.building, 0.04 * self.climate.building)
        start = np.where(
            self.block_road < 14, along_road, np.where(built >= 2, 0.4 * self.climate.building, 0.0)
        )
        odds = np.eye(3)[[0, 2, 2]][self.town]
        free = self.town == 0
        odds[free, 0], odds[free, 1] = 1 - start[free], start[free]
        return odds

    def transition(self) -> dict[str, np.ndarray]:
        """Probability of each state of each object next year: field (F,6), wood (S,6), town (B,3),
        level (LEVELS,).
        """
        level, wanted = np.zeros(LEVELS), int(np.clip(self.level + self.climb, 1, LEVELS - 1))
        level[self.level] += 1 - self.climate.filling
        level[wanted] += self.climate.filling
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
        later.field, later.wood, later.town = (
            _sample(rng, odds[k]) for k in ("field", "wood", "town")
        )
        later.level = int(_sample(rng, odds["level"][None])[0])
        return later

    def cover(self) -> np.ndarray:
        """(18, size, size) one-hot: the class of each pixel now."""
        return self._compose(
            np.eye(6)[self.field],
            np.eye(6)[self.wood],
            np.eye(3)[self.town],
            np.eye(LEVELS)[self.level],
        )

    def expected_cover(self) -> np.ndarray:
        """(18, size, size): probability of each class of each pixel next year, given the full state
        now.
        """
        odds = self.transition()
        return self._compose(odds["field"], odds["wood"], odds["town"], odds["level"])

    def _compose(
        self, field: np.ndarray, wood: np.ndarray, town: np.ndarray, level: np.ndarray
    ) -> np.ndarray:
        """Objects drawn over each other: fields and forest, town, roads, reservoir, river; exact
        for independent objects.
        """
        out = np.zeros((len(CLASSES), self.size, self.size))
        for i, name in enumerate(FIELD):
            out[INDEX[name]] = field[:, i][self.parcel] * ~self.forest
        for i, name in enumerate(STAND):
            out[INDEX[name]] = wood[:, i][self.stand] * self.forest
        town_here = (
            town[self.block] * ~self.forest[..., None] + np.eye(3)[0] * self.forest[..., None]
        )
        out *= town_here[..., 0]
        out[INDEX["site"]], out[INDEX["built"]] = town_here[..., 1], town_here[..., 2]
        out = _lay(out, "road", self.road)
        wet = sum(p * (self.shore < k) for k, p in enumerate(level))
        belt = sum(p * (self.shore == k) for k, p in enumerate(level))
        out *= 1 - wet - belt
        out[INDEX["water"]] += wet
        out[INDEX["marsh" if self.climb > 0 else "mud"]] += belt
        return _lay(out, "water", self.river)


def _lay(cover: np.ndarray, name: str, mask: np.ndarray) -> np.ndarray:
    cover = cover * ~mask
    cover[INDEX[name]] += mask
    return cover


def _sample(rng: np.random.Generator, odds: np.ndarray) -> np.ndarray:
    """One state for each row of (objects, states) probabilities, (objects,) int."""
    return (rng.random(len(odds))[:, None] > np.cumsum(odds, 1)[:, :-1]).sum(1)


def process_of_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What changed between two class maps (H, W) int: an index into `PROCESSES`, (H, W) uint8, 0
    where nothing did.
    """

    def touched(*names: str) -> np.ndarray:
        wanted = [INDEX[n] for n in names]
        return np.isin(before, wanted) | np.isin(after, wanted)

    kind = np.full(before.shape, PROCESSES.index("crop"), np.uint8)
    kind[touched("forest", "cut", "shrub", "young", "dry")] = PROCESSES.index("forest")
    kind[touched("burnt")] = PROCESSES.index("fire")
    kind[touched("site", "built")] = PROCESSES.index("town")
    kind[touched("water", "mud", "marsh")] = PROCESSES.index("water")
    return np.where(before == after, 0, kind).astype(np.uint8)
