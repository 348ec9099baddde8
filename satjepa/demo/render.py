"""From the demo world's land to what a satellite brings home.

Images like those of Sentinel-2, embeddings like those of AlphaEarth, as GeoTIFFs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from satjepa.config.yaml12 import loads
from satjepa.data.parallel import in_threads
from satjepa.demo.terrain import fractal, stream
from satjepa.demo.world import CLASSES, INDEX, Climate, Land, process_of_change
from satjepa.paths import replaced

# Of each class: red, green, blue as displayed (1.0 = reflectance 0.3558, the white of Sentinel-2
# true-colour images); how they move in an early (+) or late (-) year; how rough the surface looks.
SURFACES = {
    "water": ((0.07, 0.14, 0.19), (0.00, 0.00, 0.00), 0.002),
    "forest": ((0.10, 0.18, 0.11), (0.01, 0.02, 0.01), 0.016),
    "cut": ((0.46, 0.36, 0.27), (0.01, 0.01, 0.00), 0.022),
    "shrub": ((0.33, 0.37, 0.20), (0.02, 0.04, 0.02), 0.022),
    "young": ((0.19, 0.30, 0.14), (0.01, 0.03, 0.01), 0.016),
    "dry": ((0.42, 0.31, 0.20), (0.02, 0.00, 0.00), 0.022),
    "burnt": ((0.13, 0.10, 0.10), (0.00, 0.00, 0.00), 0.010),
    "rape": ((0.66, 0.63, 0.26), (0.05, 0.03, -0.02), 0.010),
    "wheat": ((0.26, 0.47, 0.20), (-0.04, 0.05, 0.00), 0.010),
    "maize": ((0.60, 0.52, 0.37), (-0.04, 0.03, -0.02), 0.012),
    "fallow": ((0.44, 0.31, 0.22), (-0.02, 0.03, 0.00), 0.014),
    "meadow": ((0.34, 0.43, 0.24), (-0.03, 0.04, 0.00), 0.014),
    "orchard": ((0.25, 0.33, 0.19), (-0.02, 0.03, 0.00), 0.022),
    "site": ((0.80, 0.74, 0.66), (0.00, 0.00, 0.00), 0.015),
    "built": ((0.52, 0.50, 0.50), (0.00, 0.00, 0.00), 0.006),
    "road": ((0.43, 0.42, 0.41), (0.00, 0.00, 0.00), 0.004),
    "mud": ((0.60, 0.55, 0.46), (0.01, 0.01, 0.01), 0.012),
    "marsh": ((0.22, 0.30, 0.24), (0.01, 0.02, 0.01), 0.012),
}
PALETTE = np.array([SURFACES[name][0] for name in CLASSES])  # (18, 3)
PHENOLOGY = np.array([SURFACES[name][1] for name in CLASSES])  # (18, 3)
ROUGHNESS = np.array([SURFACES[name][2] for name in CLASSES])  # (18,)
CROPLAND = [INDEX[name] for name in ("rape", "wheat", "maize", "fallow", "meadow", "orchard")]
BANDS = 64


@dataclass(frozen=True)
class Year:
    """One region in one year.

    The oracles and the process speak of this year given last year's state, and are None in the
    first year.
    """

    region: str
    year: int
    rgb: np.ndarray  # (3,H,W) uint8
    embedding: np.ndarray  # (64,H,W) float64 of unit length
    cover: np.ndarray  # (H,W) class, an index into CLASSES
    oracle_mean: np.ndarray | None  # (3,H,W) uint8
    oracle_sample: np.ndarray | None  # (3,H,W) uint8
    process: np.ndarray | None  # (H,W) uint8, an index into PROCESSES


class Camera:
    """Draws one land: its fixed textures and tints, and for each year a weather.

    The weather is what no forecast can foresee.
    """

    def __init__(self, land: Land) -> None:
        rng = stream(*land.key, "surface")
        size = land.size
        self.land = land
        self.texture = 0.55 * fractal(rng, size, 1.2) + 0.75 * fractal(rng, size, 2.4)
        blocks = rng.random((size // 4 + 1, size // 4 + 1)) - 0.5
        self.roofs = np.kron(blocks, np.ones((4, 4)))[:size, :size]  # roofs of 4 x 4 pixels
        self.tint = rng.normal(0, 0.02, (int(land.parcel.max()) + 1, 3))

    def clear(self, cover: np.ndarray) -> np.ndarray:
        """The (3,H,W) image of a cover (18,H,W) in average weather, before the optics.

        It is linear in `cover`, so that an expected cover gives the expected image.
        """
        image = np.tensordot(PALETTE.T, cover, 1)  # (3,H,W)
        rough = np.tensordot(ROUGHNESS, cover, 1) * self.texture  # (H,W)
        image += rough + 0.16 * cover[INDEX["built"]] * self.roofs
        return image + self._by_field(self.tint) * cover[CROPLAND].sum(0)

    def expected(self, cover: np.ndarray) -> np.ndarray:
        """The oracle: the mean of `shot` over cover and weather, (3,H,W) uint8.

        Exact, but for the clipping at black and white.
        """
        return _digitise(self.clear(cover))

    def shot(self, cover: np.ndarray, *when: object) -> np.ndarray:
        """The (3,H,W) uint8 image of a cover in the weather of `when`.

        Its draws, in this order: phenology, vigour of each field, haze, gain, noise.
        """
        rng = stream(*self.land.key, "weather", *when)
        loud = self.land.climate.weather
        early = loud * rng.normal(0, 0.45)
        image = self.clear(cover) + early * np.tensordot(PHENOLOGY.T, cover, 1)
        vigour = loud * rng.normal(0, 0.014, self.tint.shape)
        image += self._by_field(vigour) * cover[CROPLAND].sum(0)
        haze = loud * (rng.normal(0, 0.008) + 0.006 * fractal(rng, self.land.size, 3.4))  # (H,W)
        bluish = np.array([0.7, 1.0, 1.4])[:, None, None]  # haze scatters blue most
        gain = 1 + loud * rng.normal(0, 0.02)
        image = gain * image + haze * bluish
        return _digitise(image, rng.normal(0, 0.004, image.shape))

    def _by_field(self, values: np.ndarray) -> np.ndarray:
        """Values of each field (F,3) at its pixels: (3,H,W)."""
        return values[self.land.parcel].transpose(2, 0, 1)


def _digitise(image: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """What the instrument makes of an image (3,H,W): blurred, noisy, uint8."""
    blurred = gaussian_filter(image, (0, 0.65, 0.65))  # the point spread of a 10 m band
    return np.clip(np.round((blurred + noise) * 255), 0, 255).astype(np.uint8)


class Embedder:
    """AlphaEarth-like vectors of the land state.

    A class vector, bent by the object (field or stand) and by a slow yearly drift.

    Classes of one family (crops; woodland; town; water) share half of their vector, as similar
    covers do in AlphaEarth. Where nothing changes, the cosine from year to year has a median of
    about 0.97, as measured on real points.
    """

    FAMILY = np.array([0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 0, 0])  # of each class

    def __init__(self, seed: int, land: Land) -> None:
        shared = stream(seed, "embedding")
        family = shared.standard_normal((4, BANDS))
        own = shared.standard_normal((len(CLASSES), BANDS))
        self.classes = _unit(_unit(family)[self.FAMILY] + _unit(own))
        self.land = land
        self.parts = ((land.parcel, ~land.forest), (land.stand, land.forest))
        rng = stream(*land.key, "objects")
        self.bend = []  # of each part, a vector for each object
        for number, _ in self.parts:
            objects = int(number.max()) + 1
            self.bend.append(_unit(rng.standard_normal((objects, BANDS))))

    def __call__(self, cover: np.ndarray, year: int) -> np.ndarray:
        """(64,H,W) unit vectors of the class map `cover` (H,W) in `year`."""
        vectors = self.classes[cover]  # (H,W,64)
        for part, (number, mask) in enumerate(self.parts):
            bend = self.bend[part]
            rng = stream(*self.land.key, "drift", year, part)
            drift = _unit(rng.standard_normal(bend.shape))
            of_objects = 0.20 * bend + 0.17 * drift  # (objects,64)
            vectors += of_objects[number] * mask[..., None]
        return _unit(vectors).transpose(2, 0, 1)


def _unit(v: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, brought to length 1."""
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def simulate(
    seed: int, preset: str, region: str, climate: Climate, years: list[int], size: int
) -> Iterator[Year]:
    """The years of one region of the demo world, in order."""
    land = Land((seed, preset, region), size, climate)
    camera = Camera(land)
    embed = Embedder(seed, land)
    oracle_mean = oracle_sample = classes_before = None
    for year in years:
        cover = land.cover()  # (18,H,W)
        classes = cover.argmax(0)  # (H,W)
        process = None if classes_before is None else process_of_change(classes_before, classes)
        image = camera.shot(cover, year)
        vectors = embed(classes, year)
        yield Year(
            region, year, image, vectors, classes, oracle_mean, oracle_sample, process
        )  # fmt: skip
        # What next year's image could be at best, and what it could be once more.
        oracle_mean = camera.expected(land.expected_cover())
        again = land.advance(stream(*land.key, "played again", year))
        oracle_sample = camera.shot(again.cover(), "played again", year)
        classes_before = classes
        land = land.advance(stream(*land.key, "advance", year))


def read_recipe(path: Path) -> dict:
    """The parsed `world.yaml`; its keys are explained there."""
    return loads(Path(path).read_text(encoding="utf-8"))


def write_world(recipe: dict, out: Path, progress: bool = True) -> str:
    """Simulate every region of the recipe and write its GeoTIFFs in the published layout.

    They go to `out/<preset>/<Region>/`. Returns the SHA-256 over all pixels in order, which is the
    same on every machine.
    """
    from tqdm import tqdm

    jobs = []
    for preset, settings in recipe["presets"].items():
        for part in settings["parts"]:
            jobs += [(preset, region) for region in recipe["regions"][part]]

    def write_region(job: tuple[str, str]) -> list[np.ndarray]:
        return _write_region(recipe, *job, Path(out))

    digest = hashlib.sha256()
    with closing(in_threads(write_region, jobs)) as regions:
        bar = tqdm(regions, desc="world", total=len(jobs), unit="region", disable=not progress)
        for arrays in bar:
            for array in arrays:
                digest.update(array.tobytes())
    return digest.hexdigest()


def _write_region(recipe: dict, preset: str, region: str, out: Path) -> list[np.ndarray]:
    """Simulate a region, write its GeoTIFFs, and return the arrays written."""
    climate = Climate.of(recipe["presets"][preset])
    zone = 31 + int(stream(region).integers(0, 5))  # of UTM
    folder = out / preset / region
    arrays = []
    for year in simulate(recipe["seed"], preset, region, climate, recipe["years"], recipe["size"]):
        arrays += write_year(year, folder, zone)
    return arrays


def write_year(year: Year, folder: Path, zone: int) -> list[np.ndarray]:
    """Write one year's GeoTIFFs (UTM `zone` north, 10 m) and return the arrays written."""
    from satjepa.data.alphaearth import encode_alphaearth

    name = f"{year.region}_{year.year}"
    place = stream(year.region, "place")
    east = 400_000 + 10 * int(place.integers(0, 20_000))
    north = 5_200_000 + 10 * int(place.integers(0, 80_000))
    layers = {
        f"s2_rgb_{name}_10km.tif": year.rgb,
        f"gee_embeddings_{name}_10km.tif": encode_alphaearth(year.embedding),
    }
    if year.process is not None:
        layers |= {
            f"truth/oracle_mean_{name}.tif": year.oracle_mean,
            f"truth/oracle_sample_{name}.tif": year.oracle_sample,
            f"truth/process_{name}.tif": year.process[None],
        }
    for file, array in layers.items():
        _write_tif(folder / file, array, zone, (east, north))
    return list(layers.values())


def _write_tif(path: Path, array: np.ndarray, zone: int, corner: tuple[int, int]) -> None:
    """Write (C,H,W) pixels of 10 m; `corner`: easting and northing of the upper left, in metres."""
    import rasterio
    from affine import Affine

    count, height, width = array.shape
    profile = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": array.dtype,
        "nodata": -128 if array.dtype == np.int8 else None,
        "crs": f"EPSG:{32600 + zone}",
        "transform": Affine(10, 0, corner[0], 0, -10, corner[1]),
        "compress": "deflate",
        "interleave": "pixel" if count <= 3 else "band",
    }
    with replaced(path) as part, rasterio.open(part, "w", **profile) as tif:
        tif.write(array)
