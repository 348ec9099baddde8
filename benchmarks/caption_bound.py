"""What is the true caption of next year worth to a forecaster that knows all else?

    python benchmarks/caption_bound.py [--part test] [--preset strong] [--years 2] [--draws 256]

The oracle of the demo world knows the full state of the land and the true odds of every change. It
plays the coming year `--draws` times; each play is photographed, and its windows are captioned by
rule as the truth is. Of a quarter of a window, the plays whose words agree with the true caption
are kept: those with the same covers in that quarter and, where at least `ENOUGH` are left, the same
signs of change. Their mean cover, drawn by the camera, is the best forecast of one who was told the
semantic caption, too. The gain over all plays is the value of the words: no model can hear more
from them than this, unless it knows less of the land to begin with.

The mean of n plays is noisier than the expectation that it stands for, by the variance of a play
over n; that is subtracted from its squared error. Quarters with fewer than `FEW` agreeing plays are
forecast from all plays, and their share is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from satjepa.captions.rules import caption
from satjepa.demo.render import Camera, read_recipe
from satjepa.demo.terrain import stream
from satjepa.demo.world import Climate, Land
from satjepa.paths import root

SIDE = 64  # pixels of a window
HALF = SIDE // 2
ENOUGH = 16
FEW = 4
CHANGED = 0.1  # of a pixel: mean over bands of |rgb(t+1) - rgb(t)| above this


@dataclass(frozen=True)
class Said:
    """A semantic caption by rule: the covers of each quarter (northwest, northeast, southwest,
    southeast), and the signs of change.
    """

    quarters: tuple[str, ...]
    signs: str

    @classmethod
    def of(cls, image: np.ndarray) -> Said:
        """Of an image (3,64,64) uint8."""
        text = caption(image.astype(np.float32) / 255, encoding="display").semantic
        _, quarters, signs = text.split(". ", 2)
        return cls(tuple(quarters.split(", ")), signs)


def windows(image: np.ndarray) -> np.ndarray:
    """An image (C,H,W) cut into windows without overlap: (N,C,64,64)."""
    bands, height, width = image.shape
    rows = height // SIDE
    columns = width // SIDE
    cut = image[:, : rows * SIDE, : columns * SIDE].reshape(bands, rows, SIDE, columns, SIDE)
    return cut.transpose(1, 3, 0, 2, 4).reshape(-1, bands, SIDE, SIDE)


def quarters(window: np.ndarray) -> np.ndarray:
    """The quarters (4,...,32,32) of windows (...,64,64), in the order of the captions."""
    north, south = np.split(window, 2, axis=-2)
    return np.stack([half for row in (north, south) for half in np.split(row, 2, axis=-1)])


def agreeing(true: Said, plays: list[Said], quarter: int) -> np.ndarray:
    """Which of the plays say of a quarter what is true, (draws,) bool."""
    covers = np.array([play.quarters[quarter] == true.quarters[quarter] for play in plays])
    signs = covers & np.array([play.signs == true.signs for play in plays])
    return signs if signs.sum() >= ENOUGH else covers


def errors(truth: np.ndarray, plays: np.ndarray) -> np.ndarray:
    """Squared error (H,W), mean over bands, of the expectation that plays (n,3,H,W) were drawn
    from, against truth (3,H,W): the noise of their mean is taken off.
    """
    noise = plays.var(0, ddof=1) / len(plays)
    return ((plays.mean(0) - truth) ** 2 - noise).mean(0)


def score_window(
    before: np.ndarray, truth: np.ndarray, plays: np.ndarray, said: list[Said]
) -> Iterator[dict[str, float]]:
    """The errors of each quarter of a window: images of t and t+1 (3,64,64) in [0, 1], those
    expected from each play (draws,3,64,64), and what is said of the play.
    """
    true = Said.of((255 * truth).round().astype(np.uint8))
    parts = zip(quarters(before), quarters(truth), quarters(plays), strict=True)
    for number, (old, new, drawn) in enumerate(parts):
        kept = agreeing(true, said, number)
        without = errors(new, drawn)
        told = errors(new, drawn[kept]) if kept.sum() >= FEW else without
        moved = np.abs(new - old).mean(0) > CHANGED
        yield {
            "agree": kept.mean(),
            "few": float(kept.sum() < FEW),
            "all": without.mean(),
            "all told": told.mean(),
            "changed": (without * moved).sum(),
            "changed told": (told * moved).sum(),
            "pixels": moved.sum(),
        }


def score_year(land: Land, camera: Camera, year: int, draws: int) -> list[dict[str, float]]:
    """All windows of a region, forecast from `year` to the next."""
    later = land.advance(stream(*land.key, "advance", year))
    before = windows(camera.shot(land.cover(), year)) / 255
    truth = windows(camera.shot(later.cover(), year + 1)) / 255
    images = []
    said = []
    for draw in range(draws):
        cover = land.advance(stream(*land.key, "bound", year, draw)).cover()
        images.append(windows(camera.expected(cover)) / 255)
        shots = windows(camera.shot(cover, "bound", year, draw))
        said.append([Said.of(shot) for shot in shots])
    plays = np.stack(images, 1).astype(np.float32)  # (N,draws,3,64,64)
    rows = []
    for number in range(len(truth)):
        words = [play[number] for play in said]
        rows += score_window(before[number], truth[number], plays[number], words)
    return rows


def decibels(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, data range 1."""
    return float(-10 * np.log10(mse))


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """PSNR without and with the words: of windows, their mean; of changed pixels, pooled."""
    window = np.arange(len(rows)) // 4
    whole = rows.groupby(window)[["all", "all told"]].mean().map(decibels).mean()
    moved = rows[["changed", "changed told"]].sum() / rows["pixels"].sum()
    moved = moved.map(decibels)
    return pd.DataFrame(
        {
            "all pixels": [*whole, whole.iloc[1] - whole.iloc[0]],
            "changed pixels": [*moved, moved.iloc[1] - moved.iloc[0]],
        },
        index=["oracle", "oracle, told the caption", "gain"],
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("train", "val", "test"), default="test")
    parser.add_argument("--preset", default="strong")
    parser.add_argument("--years", type=int, default=2, help="pairs of years of each region")
    parser.add_argument("--draws", type=int, default=256)
    args = parser.parse_args()
    recipe = read_recipe(root() / "assets/demo/world.yaml")
    climate = Climate.of(recipe["presets"][args.preset])
    rows = []
    for region in recipe["regions"][args.part]:
        land = Land((recipe["seed"], args.preset, region), recipe["size"], climate)
        camera = Camera(land)
        for year in recipe["years"][: args.years]:
            rows += score_year(land, camera, year, args.draws)
            land = land.advance(stream(*land.key, "advance", year))
        print(f"{region}: {len(rows) // 4} windows", flush=True)
    frame = pd.DataFrame(rows)
    print(table(frame).round(2).to_string())
    print(
        f"plays that agree with the true words of a quarter: {frame['agree'].mean():.1%}; quarters "
        f"with fewer than {FEW}: {frame['few'].mean():.1%}"
    )


if __name__ == "__main__":
    main()
