"""Rows to tables: several seeds to one row, CSV to the Markdown table of the README."""

import json
from pathlib import Path

import pandas as pd

IDENTITY = ("model", "preset", "n", "samples")  # what the rows of several seeds must share
COLUMNS = (  # of the README's table; the CSV holds more
    *("psnr", "ssim", "gssim", "l1", "lpips", "lpips_rand", "fid64", "fid2048", "fd_vgg", "fd_vgg_rand"),
    *("skill", "psnr_changed", "skill_changed", "crps", "spread_skill"),
)
DIGITS = {"psnr": 2, "l1": 4, "mse": 5, "crps": 4, "fid": 1, "fd_vgg": 1, "spread_skill": 2}  # by prefix; others 3
UPWARDS = ("psnr", "ssim", "gssim", "skill")
MISSING = "–"


def combine_seeds(rows: list[dict]) -> dict:
    """One row for a model trained with several seeds: mean, and `<metric>_std` (n - 1) where there are two or more.

    What one of them could not measure is None. Raises ValueError if they are not rows of the same thing: another model,
    preset, n or number of samples, or other columns (`lpips` and `lpips_rand` must never be averaged).
    """
    first = rows[0]
    for row in rows[1:]:
        if any(row[key] != first[key] for key in IDENTITY) or set(row) != set(first):
            raise ValueError(f"rows of different things: {[first[k] for k in IDENTITY]}, {[row[k] for k in IDENTITY]}")
    combined = {key: first[key] for key in IDENTITY} | {"seeds": len(rows)}
    for key in (key for key in first if key not in IDENTITY):
        values = pd.Series([row[key] for row in rows], dtype="float64")
        combined[key] = None if values.isna().any() else float(values.mean())
        if len(rows) > 1:
            combined[f"{key}_std"] = None if values.isna().any() else float(values.std())
    return combined


def _cell(row: pd.Series, column: str) -> str:
    """A number, with its standard deviation over seeds where there is one; an en dash where there is none."""
    if pd.isna(row[column]):
        return MISSING
    digits = next((n for prefix, n in DIGITS.items() if column.startswith(prefix)), 3)
    deviation = row.get(f"{column}_std")
    return f"{row[column]:.{digits}f}" + ("" if pd.isna(deviation) else f" ± {deviation:.{digits}f}")


def _heading(column: str) -> str:
    if column == "spread_skill":
        return f"{column} (ideal 1)"
    return f"{column} {'↑' if column.startswith(UPWARDS) else '↓'}"


def _footnotes(table: pd.DataFrame, columns: list[str], settings: dict) -> list[str]:
    """What a reader must know about the columns shown, one line each."""
    notes = [f"n = {', '.join(str(n) for n in sorted(set(table['n'])))} patches."]
    if "seeds" in table and table["seeds"].max() > 1:
        notes.append("± is the standard deviation over seeds.")
    if any(column.startswith("fid") and table[column].isna().all() for column in columns):
        notes.append(f"{MISSING} under fid: not measured, {settings.get('fid_missing') or 'no Inception weights'}.")
    if any(column.endswith("_rand") for column in columns):
        notes.append("lpips_rand, fd_vgg_rand: a random trunk stands in for VGG16; not comparable with LPIPS anywhere.")
    if any(column.endswith("_changed") for column in columns) and "change_threshold" in settings:
        notes.append(f"changed: where |rgb(t+1) - rgb(t)|, mean of bands, exceeds {settings['change_threshold']}.")
    explained = (*COLUMNS, "fid")
    present = [key for key in explained if settings.get(key) and any(column.startswith(key) for column in columns)]
    return notes + [f"{key}: {settings[key]}." for key in present]


def markdown_table(csv: str | Path, preset: str | None = None, columns: tuple[str, ...] = COLUMNS) -> str:
    """The Markdown table of a CSV by `write_table`, for one preset if given, with footnotes from its settings.

    Columns the CSV does not have are left out; a value that was not measured is an en dash.
    """
    csv = Path(csv)
    table = pd.read_csv(csv)
    table = table if preset is None else table[table["preset"] == preset]
    columns = [column for column in columns if column in table]
    settings_file = csv.with_suffix(".settings.json")
    settings = json.loads(settings_file.read_text()) if settings_file.is_file() else {}
    lines = ["| model | " + " | ".join(map(_heading, columns)) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row['model']} | " + " | ".join(_cell(row, c) for c in columns) + " |" for _, row in table.iterrows()]
    return "\n".join([*lines, "", *(f"* {note}" for note in _footnotes(table, columns, settings))]) + "\n"
