"""From the demo world's land to what a satellite brings home: Sentinel-2-like images,
AlphaEarth-like embeddings, GeoTIFFs.
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
from satjepa.demo.world import CLASSES, INDEX, Climate, Land, fractal, process_of_change, stream

# of each class: red, green, blue as displayed (1.0 = reflectance 0.3558, the white of Sentinel-2
# true-colour images); how they move in an early (+) or late (-) year; how rough the surface looks
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
PALETTE, PHENOLOGY, ROUGHNESS = (
    np.array([SURFACES[name][i] for name in CLASSES]) for i in range(3)
)
CROPLAND = [INDEX[c] for c in ("rape", "wheat", "maize", "fallow", "meadow", "orchard")]
BANDS = 64


@dataclass(frozen=True)
class Year:
    """One region in one year. rgb, oracle_mean, oracle_sample: (3,H,W) uint8; embedding: (64,H,W)
    float64 of unit length;
    cover: (H,W) class; process: (H,W) uint8. The oracles and the process speak of this year given
    last year's state, and are None in the first year.
    """

    region: str
    year: int
    rgb: np.ndarray
    embedding: np.ndarray
    cover: np.ndarray
    oracle_mean: np.ndarray | None
    oracle_sample: np.ndarray | None
    process: np.ndarray | None


class Camera:
    """Draws one land: its fixed textures and tints, and for each year a weather that no one can
    foresee.
    """

    def __init__(self, land: Land) -> None:
        rng = stream(*land.key, "surface")
        size = land.size
        self.land = land
        self.texture = 0.55 * fractal(rng, size, 1.2) + 0.75 * fractal(rng, size, 2.4)
        self.roofs = np.kron(rng.random((size // 4 + 1, size // 4 + 1)) - 0.5, np.ones((4, 4)))[
            :size, :size
        ]
        self.tint = rng.normal(0, 0.02, (int(land.parcel.max()) + 1, 3))

    def clear(self, cover: np.ndarray) -> np.ndarray:
        """The (3,H,W) image of a cover (18,H,W) in average weather, before the optics; linear in
        `cover`.
        """
        image = np.tensordot(PALETTE.T, cover, 1)
        image += (
            np.tensordot(ROUGHNESS, cover, 1) * self.texture
            + 0.16 * cover[INDEX["built"]] * self.roofs
        )
        return image + self._by_field(self.tint) * cover[CROPLAND].sum(0)

    def expected(self, cover: np.ndarray) -> np.ndarray:
        """The oracle: the mean of `shot` over cover and weather, (3,H,W) uint8 (exact, but for the
        clipping at black and white).
        """
        return _digitise(self.clear(cover))

    def shot(self, cover: np.ndarray, *when: object) -> np.ndarray:
        """The (3,H,W) uint8 image of a cover in the weather of `when`: phenology, vigour of each
        field, haze, gain, noise.
        """
        rng = stream(*self.land.key, "weather", *when)
        loud = self.land.climate.weather
        image = self.clear(cover) + loud * rng.normal(0, 0.45) * np.tensordot(PHENOLOGY.T, cover, 1)
        vigour = loud * rng.normal(0, 0.014, self.tint.shape)
        image += self._by_field(vigour) * cover[CROPLAND].sum(0)
        haze = loud * (rng.normal(0, 0.008) + 0.006 * fractal(rng, self.land.size, 3.4))
        image = (1 + loud * rng.normal(0, 0.02)) * image + haze * np.array([0.7, 1.0, 1.4])[
            :, None, None
        ]
        return _digitise(image, rng.normal(0, 0.004, image.shape))

    def _by_field(self, values: np.ndarray) -> np.ndarray:
        return values[self.land.parcel].transpose(2, 0, 1)


def _digitise(image: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    seen = gaussian_filter(image, (0, 0.65, 0.65)) + noise  # the point spread of a 10 m band
    return np.clip(np.round(seen * 255), 0, 255).astype(np.uint8)


class Embedder:
    """AlphaEarth-like vectors of the land state: a class vector, bent by the object and by a slow
    yearly drift.

    Classes of one family (crops; woodland; town; water) share half of their vector, as similar
    covers do in AlphaEarth. Where nothing changes, the cosine from year to year has a median of
    about 0.97, as measured on real points.
    """

    FAMILY = np.array([0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 0, 0])

    def __init__(self, seed: int, land: Land) -> None:
        shared = stream(seed, "embedding")
        family = shared.standard_normal((4, BANDS))
        own = shared.standard_normal((len(CLASSES), BANDS))
        self.classes = _unit(_unit(family)[self.FAMILY] + _unit(own))
        self.land = land
        self.parts = ((land.parcel, ~land.forest), (land.stand, land.forest))
        rng = stream(*land.key, "objects")
        self.bend = [
            _unit(rng.standard_normal((int(number.max()) + 1, BANDS))) for number, _ in self.parts
        ]

    def __call__(self, cover: np.ndarray, year: int) -> np.ndarray:
        """(64,H,W) unit vectors of the class map `cover` (H,W) in `year`."""
        out = self.classes[cover]
        for part, ((number, mask), bend) in enumerate(zip(self.parts, self.bend, strict=True)):
            rng = stream(*self.land.key, "drift", year, part)
            drift = _unit(rng.standard_normal(bend.shape))
            out += (0.20 * bend + 0.17 * drift)[number] * mask[..., None]
        return _unit(out).transpose(2, 0, 1)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def simulate(
    seed: int, preset: str, region: str, climate: Climate, years: list[int], size: int
) -> Iterator[Year]:
    """The years of one region of the demo world, in order."""
    land = Land((seed, preset, region), size, climate)
    camera = Camera(land)
    embed = Embedder(seed, land)
    mean = sample = last = None
    for year in years:
        cover = land.cover()
        classes = cover.argmax(0)
        process = None if last is None else process_of_change(last, classes)
        yield Year(
            region,
            year,
            camera.shot(cover, year),
            embed(classes, year),
            classes,
            mean,
            sample,
            process,
        )
        mean = camera.expected(land.expected_cover())
        last = classes
        again = land.advance(stream(*land.key, "played again", year))
        sample = camera.shot(again.cover(), "played again", year)
        land = land.advance(stream(*land.key, "advance", year))


def read_recipe(path: Path) -> dict:
    """The parsed `world.yaml`; its keys are explained there."""
    return loads(Path(path).read_text(encoding="utf-8"))


def write_world(recipe: dict, out: Path, progress: bool = True) -> str:
    """Simulate every region of the recipe and write its GeoTIFFs under `out/<preset>/<Region>/` in
    the published layout.

    Returns the SHA-256 over all pixels in order, which is the same on every machine.
    """
    from tqdm import tqdm

    digest = hashlib.sha256()
    jobs = [
        (preset, region)
        for preset, spec in recipe["presets"].items()
        for part in spec["parts"]
        for region in recipe["regions"][part]
    ]
    with closing(in_threads(lambda job: _write_region(recipe, *job, Path(out)), jobs)) as written:
        for arrays in tqdm(
            written, desc="world", total=len(jobs), unit="region", disable=not progress
        ):
            for array in arrays:
                digest.update(array.tobytes())
    return digest.hexdigest()


def _write_region(recipe: dict, preset: str, region: str, out: Path) -> list[np.ndarray]:
    """Simulate a region, write its GeoTIFFs, and return the arrays written."""
    climate = Climate(**{k: v for k, v in recipe["presets"][preset].items() if k != "parts"})
    zone = 31 + int(stream(region).integers(0, 5))
    years = simulate(recipe["seed"], preset, region, climate, recipe["years"], recipe["size"])
    return [array for year in years for array in write_year(year, out / preset / region, zone)]


def write_year(year: Year, folder: Path, zone: int) -> list[np.ndarray]:
    """Write one year's GeoTIFFs (UTM `zone` north, 10 m) and return the arrays written."""
    from satjepa.data.alphaearth import encode_alphaearth

    name = f"{year.region}_{year.year}"
    place = stream(year.region, "place")
    corner = (
        400_000 + 10 * int(place.integers(0, 20_000)),
        5_200_000 + 10 * int(place.integers(0, 80_000)),
    )
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
        _write_tif(folder / file, array, zone, corner)
    return list(layers.values())


def _write_tif(path: Path, array: np.ndarray, zone: int, corner: tuple[int, int]) -> None:
    import rasterio
    from affine import Affine

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    nodata = -128 if array.dtype == np.int8 else None
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=array.dtype,
        nodata=nodata,
        crs=f"EPSG:{32600 + zone}",
        transform=Affine(10, 0, corner[0], 0, -10, corner[1]),
        compress="deflate",
        interleave="pixel" if count <= 3 else "band",
    ) as tif:
        tif.write(array)
