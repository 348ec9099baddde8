"""What notebook 00 walks with: a place rendered on the fly, its batch, its captions and what the
tables say of them. `satjepa.pipeline.watch` looks into the model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satjepa.assemble import load_text_encoders
from satjepa.captions.rules import caption
from satjepa.contracts import Batch, Captions
from satjepa.data.pairs import PairDataset, collate
from satjepa.models.averages import AVERAGE
from satjepa.pipeline.watch import as_map

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from satjepa.captions.embeddings import TextEncoders
    from satjepa.models.joint import JointModel

MEANING = {
    "rgb_t": "image of year t",
    "rgb_tp1": "image of year t+1, the truth",
    "valid_t": "pixels of year t that hold data",
    "valid_tp1": "likewise, year t+1",
    "emb_tp1": "AlphaEarth vectors of year t+1",
    "emb_valid": "pixels that have such a vector",
    "history": "images of years t-1, t-2",
    "history_valid": "which of them exist",
    "oracle_mean": "the expected image (demo world only)",
    "oracle_sample": "one possible image (demo world only)",
    "process": "what changed a pixel (demo world only)",
    "text_t": "three captions of year t",
    "text_tp1": "three captions of year t+1",
}


def rendered(
    recipe: Mapping[str, Any], region: str, last: int, preset: str = "strong"
) -> xr.Dataset:
    """One region of the demo world up to the year `last`, with its truth, as
    `satjepa.data.cube.build_cube` stores it; in memory, in a second or two.

    recipe: the parsed world.yaml (`satjepa.demo.render.read_recipe`).
    """
    import xarray as xr

    from satjepa.data.alphaearth import encode_alphaearth
    from satjepa.demo.render import simulate
    from satjepa.demo.world import Climate

    climate = Climate(**{k: v for k, v in recipe["presets"][preset].items() if k != "parts"})
    numbers = [year for year in recipe["years"] if year <= last]
    years = [*simulate(recipe["seed"], preset, region, climate, numbers, recipe["size"])]
    bands = ("year", "band", "y", "x")
    plane = ("year", "y", "x")
    none = np.zeros_like(years[0].rgb)
    layers = {
        "rgb": (bands, np.stack([year.rgb for year in years])),
        "valid": (plane, np.ones((len(years), *none.shape[1:]), bool)),
        "emb": (
            ("year", "emb_band", "y", "x"),
            np.stack([encode_alphaearth(year.embedding) for year in years]),
        ),
        "has_truth": (("year",), np.array([year.process is not None for year in years])),
    }
    for name, dims, empty in (
        ("oracle_mean", bands, none),
        ("oracle_sample", bands, none),
        ("process", plane, none[0]),
    ):
        values = [getattr(year, name) for year in years]
        layers[name] = (dims, np.stack([empty if value is None else value for value in values]))
    return xr.Dataset(layers, {"year": numbers}, {"region": region, "preset": preset})


def batch_at(cube: xr.Dataset, year: int, x: int, y: int, patch: int, history: int) -> Batch:
    """The batch (B = 1) of the window of a cube whose upper left corner is (x, y), from `year` to
    the next; `x` and `y` are multiples of half a patch. ValueError where there is no such sample.
    """
    data = PairDataset([cube], None, patch, patch // 2, history, truth=True)
    wanted = {"year": year, "x": x, "y": y}
    for index in range(len(data)):
        meta = data.meta(index)
        if all(meta[name] == value for name, value in wanted.items()):
            return collate([data[index]])
    raise ValueError(
        f"no sample {wanted} in {cube.attrs['region']}: years {cube['year'].values.tolist()}, "
        f"corners every {patch // 2} pixels"
    )


def captions_of(rgb: Tensor, valid: Tensor) -> Captions:
    """The three captions, by rule, of one image (3,H,W) in [0, 1] with its mask (1,H,W)."""
    return caption(rgb.numpy(), valid[0].numpy(), "display")


def contents(batch: Mapping[str, Any]) -> pd.DataFrame:
    """What a batch holds: one row a tensor, with shape, dtype, range and meaning."""
    import pandas as pd

    flat: dict[str, Tensor] = {}
    for name, value in batch.items():
        if isinstance(value, Tensor):
            flat[name] = value
        elif isinstance(value, dict):
            flat |= {f"{name}.{part}": tensor for part, tensor in value.items()}
    rows = {}
    for name, tensor in flat.items():
        low = tensor.min().item()
        high = tensor.max().item()
        rows[name] = {
            "shape": str(tuple(tensor.shape)),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "range": f"{low:.3g} to {high:.3g}",
            "what it is": MEANING.get(name.split(".")[0], ""),
        }
    return pd.DataFrame(rows).T


def use_average(model: JointModel) -> JointModel:
    """The model with its averaged weights in place, those that forecasts are made with, ready to
    be looked at: nothing of it trains.

    A shipped model has no target encoder; the averaged encoder, which is a moving average of the
    same weights, stands in its place.
    """
    averages = {
        name.removeprefix(AVERAGE): tensor
        for name, tensor in model.state().items()
        if name.startswith(AVERAGE)
    }
    model.load_state_dict(averages, strict=False)
    if model.params.model.use_jepa:
        model.target_encoder = copy.deepcopy(model.encoder)
    return model.eval().requires_grad_(False)


def loss_table(parts: Mapping[str, Tensor], weights: Any) -> pd.DataFrame:
    """The parts of the joint loss with their weights and what each adds; the last row is the sum.

    parts: of `SatJepa.forward`; weights: the `loss` section of the parameters.
    """
    import pandas as pd

    from satjepa.models.losses import CaptionWeights

    scales = {"ijepa": weights.ijepa, "readout": weights.readout}
    scales |= {"layout": weights.layout, "flow": weights.sd, "caption": weights.caption}
    inner = {"ijepa": weights, "caption": CaptionWeights()}
    rows = {}
    for name, value in parts.items():
        if name == "loss" or value.ndim:
            continue
        group, part = name.split(".")
        weight = scales[group] * getattr(inner.get(group), part, 1.0)
        rows[name] = {"value": value.item(), "weight": weight, "adds": weight * value.item()}
    frame = pd.DataFrame(rows).T
    total = {"value": parts["loss"].item(), "weight": 1.0, "adds": frame["adds"].sum()}
    return pd.concat([frame, pd.DataFrame({"loss": total}).T])


def text_encoders(model: JointModel) -> TextEncoders:
    """The frozen text encoders of a model's backbone, on the CPU."""
    return load_text_encoders(model.params, "cpu")


def alphaearth(cube: xr.Dataset, batch: Batch, model: JointModel, lag: int) -> Tensor:
    """AlphaEarth's vectors of year t + lag, as the projection head is to say them: layer-normed
    means of the cells, (64, g * cells, g * cells).
    """
    from satjepa.data.alphaearth import decode_alphaearth
    from satjepa.models.jepa import patch_cells

    meta = batch["meta"][0]
    side = batch["rgb_t"].shape[-1]
    stored = cube["emb"].sel(year=meta["year"] + lag).values
    window = stored[:, meta["y"] : meta["y"] + side, meta["x"] : meta["x"] + side]
    vectors = torch.from_numpy(decode_alphaearth(window))[None]
    cells, _ = patch_cells(vectors, model.params.model.encoder.patch, model.cells)
    return as_map(cells[0])
