"""Rows to tables: several seeds to one row, CSV to the Markdown tables of README and notebooks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from satjepa.paths import replaced, write_text

NAMES = ("model", "preset", "region", "run")  # columns that hold text, whatever it looks like
IDENTITY = ("model", "preset", "n", "samples")  # what the rows of several seeds must share
# Metrics of one forecast on two machines: float32 summed in another order moves LPIPS and the
# Frechet distance by less than 1e-7 of their size (measured: oneDNN on and off), so 1e-4 leaves
# room. It is 0.002 dB of PSNR: two trainings are not that close in every metric. Skill can be 0,
# hence the absolute part.
SAME = {"rtol": 1e-4, "atol": 1e-6}
MISSING = "–"
COLUMNS = {  # of the CSV, which holds more: (heading, digits); the arrow says which end is the best
    "psnr": ("PSNR ↑", 2), "ssim": ("SSIM ↑", 3), "gssim": ("GSSIM ↑", 3), "l1": ("L1 ↓", 4),
    "mse": ("MSE ↓", 4), "lpips": ("LPIPS (VGG) ↓", 3), "lpips_rand": ("LPIPS (random trunk) ↓", 3),
    "fid64": ("FID, 64 features ↓", 1), "fid2048": ("FID ↓", 1), "fd_vgg": ("Fréchet (VGG) ↓", 1),
    "fd_vgg_rand": ("Fréchet (random trunk) ↓", 1), "skill": ("skill ↑", 3), "crps": ("CRPS ↓", 4),
    "psnr_changed": ("PSNR, changed pixels ↑", 2), "skill_changed": ("skill, changed pixels ↑", 3),
    "spread_skill": ("spread / skill (ideal 1)", 2),
}  # fmt: skip
COSTS = {  # of costs.csv: (heading, format)
    "trained_parameters": ("trained parameters", lambda n: f"{n / 1e6:.2f} M" if n else MISSING),
    "training_minutes": ("training, core-minutes", lambda n: f"{n:.0f}" if n else MISSING),
    "seconds_per_patch": ("forecast, ms a patch", lambda n: f"{1000 * n:.0f}"),
}
ACRONYMS = ("jepa", "rgb")  # in names of arms
BESIDE = (
    "Oracle",
    "Mean colour",
    "Ablation",
)  # how the names of rows begin that no number is bold in


def arm_title(arm: str) -> str:
    """The name of an arm of params.yaml in a table: "no_jepa" is "no JEPA"."""
    return " ".join(word.upper() if word in ACRONYMS else word for word in arm.split("_"))


def combine_seeds(rows: list[dict]) -> dict:
    """One row from those of several tables, each of another seed: mean and `<metric>_std` (n - 1)
    of every metric.

    `seeds` counts the tables. Where all metrics agree (`SAME`), nothing was trained: `seeds` is 1
    and there is no `<metric>_std`, as for one table. What one of them could not measure is None.
    Raises ValueError if they are not rows of the same thing: another model, preset, n or number of
    samples, or other columns (`lpips` and `lpips_rand` must never be averaged).
    """
    first = rows[0]
    for row in rows[1:]:
        if any(row[key] != first[key] for key in IDENTITY) or set(row) != set(first):
            raise ValueError(
                f"rows of different things: {[first[k] for k in IDENTITY]}, "
                f"{[row[k] for k in IDENTITY]}"
            )
    metrics = [key for key in first if key not in (*IDENTITY, "seeds")]
    measured = {}
    for key in metrics:
        measured[key] = pd.Series([row[key] for row in rows], dtype="float64")
    differ = not all(_agree(values.dropna()) for values in measured.values())
    combined = {key: first[key] for key in IDENTITY} | {"seeds": len(rows) if differ else 1}
    for key, values in measured.items():
        combined[key] = None if values.isna().any() else float(values.mean())
        if differ:
            combined[f"{key}_std"] = None if values.isna().any() else float(values.std())
    return combined


def _agree(values: pd.Series) -> bool:
    return np.allclose(values, values.mean(), **SAME)


def markdown_table(
    csv: str | Path, preset: str | None = None, columns: tuple[str, ...] = tuple(COLUMNS), *,
    title: str = "model", without: tuple[str, ...] = (), bold: bool = False, costs: bool = False,
    notes: bool = True,
) -> str:  # fmt: skip
    """The Markdown table of a CSV by `write_table`, for one preset if given.

    columns: of `COLUMNS`; those the CSV does not have are left out. A value that was not measured
    is an en dash. title: heading of the models' column. without: how the names of rows begin that
    are left out. bold: the best number of each column that has a best end, the rows `BESIDE` the
    contest aside. costs: what each system cost, where the seeds of an experiment stand beside the
    CSV (seed-*/costs.csv): the least
        over the seeds, as whatever else a machine did then only adds.
    notes: below the table, what a reader must know, from the CSV's settings.
    """
    csv = Path(csv)
    rows = pd.DataFrame(read_scores(csv))
    rows = rows if preset is None else rows[rows["preset"] == preset]
    rows = rows[~rows["model"].str.startswith(without)]
    columns = [column for column in columns if column in rows]
    winners = {column: _best(rows, column) if bold else None for column in columns}
    spent = _least_costs(csv.parent) if costs else None
    heads = [title, *(COLUMNS[column][0] for column in columns)]
    heads += [heading for heading, _ in COSTS.values()] if spent is not None else []
    lines = [heads, ["---"] * len(heads)]
    for _, row in rows.iterrows():
        beside = row["model"].startswith(BESIDE)
        cells = [_cell(row, column, None if beside else winners[column]) for column in columns]
        lines.append(
            [row["model"], *cells, *(_spent(spent, row["model"]) if spent is not None else [])]
        )
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return text + "".join(
        ["\n", *(f"* {note}\n" for note in _footnotes(csv, rows, columns))] if notes else []
    )


def _best(rows: pd.DataFrame, column: str) -> float | None:
    """The best value of a column among the systems that forecast; None where there is none."""
    rivals = rows.loc[~rows["model"].str.startswith(BESIDE), column]
    arrow = COLUMNS[column][0][-1]
    if arrow not in "↑↓" or rivals.isna().all():
        return None
    return rivals.max() if arrow == "↑" else rivals.min()


def _cell(row: pd.Series, column: str, winner: float | None) -> str:
    """A number, with its standard deviation over seeds where there is one; bold if it is the best
    of its column.
    """
    if pd.isna(row[column]):
        return MISSING
    digits = COLUMNS[column][1]
    deviation = row.get(f"{column}_std")
    text = f"{row[column]:.{digits}f}"
    text = f"**{text}**" if winner is not None and text == f"{winner:.{digits}f}" else text
    return text + ("" if pd.isna(deviation) else f" ± {deviation:.{digits}f}")


def _least_costs(folder: Path) -> pd.DataFrame | None:
    """Least cost of each model over the seeds of an experiment, by its name in the table; None
    where there are none.
    """
    found = [pd.DataFrame(read_scores(file)) for file in sorted(folder.glob("seed-*/costs.csv"))]
    if not found:
        return None
    rows = pd.concat(found)
    return rows.groupby("model")[[*COSTS]].min()


def _spent(costs: pd.DataFrame, model: str) -> list[str]:
    if model not in costs.index:
        return [MISSING] * len(COSTS)
    return [say(costs.loc[model, name]) for name, (_, say) in COSTS.items()]


def _footnotes(csv: Path, rows: pd.DataFrame, columns: list[str]) -> list[str]:
    """What a reader must know about the columns shown, one line each."""
    beside = csv.with_suffix(".settings.json")
    settings = json.loads(beside.read_text()) if beside.is_file() else {}
    notes = [f"n = {', '.join(str(n) for n in sorted(set(rows['n'])))} patches."]
    if "seeds" in rows and rows["seeds"].max() > 1:
        notes.append("± is the standard deviation over seeds.")
    if any(column.startswith("fid") and rows[column].isna().all() for column in columns):
        notes.append(
            f"{MISSING} under FID: not measured, "
            f"{settings.get('fid_missing') or 'no Inception weights'}."
        )
    if any(column.endswith("_rand") for column in columns):
        notes.append("Random trunk: it stands in for VGG16; not comparable with LPIPS anywhere.")
    if any(column.endswith("_changed") for column in columns) and "change_threshold" in settings:
        notes.append(
            "Changed: where |rgb(t+1) - rgb(t)|, mean of bands, exceeds "
            f"{settings['change_threshold']}."
        )
    names = {column: heading.rstrip(" ↑↓") for column, (heading, _) in COLUMNS.items()} | {
        "fid": "FID"
    }
    for key, name in names.items():
        if settings.get(key) and any(column.startswith(key) for column in columns):
            notes.append(f"{name}: {settings[key]}.")
    return notes


def write_table(rows: list[dict], path: str | Path, settings: dict | None = None) -> None:
    """Rows to a CSV (missing values empty), and what the numbers depend on beside it in
    `<name>.settings.json`.
    """
    with replaced(path) as part:
        pd.DataFrame(rows).to_csv(part, index=False, float_format="%.8g")
    if settings is not None:
        text = json.dumps(settings, indent=1, sort_keys=True)
        write_text(Path(path).with_suffix(".settings.json"), text + "\n")


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV by `write_table`; names are strings, what is missing is None."""
    frame = pd.read_csv(
        path, dtype=dict.fromkeys(NAMES, "str"), keep_default_na=False, na_values=[""]
    )
    return frame.astype(object).where(lambda values: values.notna(), None).to_dict("records")
