"""The tables of README.md, from the CSV each names: `python tests/readme_table.py` writes them anew, a test compares.

Each stands between `<!-- table PRESET of FOLDER -->` and `<!-- end -->`. FOLDER holds table.csv: that of the demo run,
reports, or that of an experiment, experiments/<name>, whose seeds also say what each system cost. The best number of a
column is bold, bounds and mean colour aside. Ablations stand in the table of an experiment only.
"""

import re
from pathlib import Path

import pandas as pd
from reach import REPO

COLUMNS = {  # of the CSV: (heading, digits)
    "psnr": ("PSNR ↑", 2), "ssim": ("SSIM ↑", 3), "gssim": ("GSSIM ↑", 3), "l1": ("L1 ↓", 4), "mse": ("MSE ↓", 4),
    "lpips": ("LPIPS (VGG) ↓", 3), "fid2048": ("FID ↓", 1), "fd_vgg": ("Fréchet (VGG) ↓", 1),
    "skill": ("skill ↑", 3), "crps": ("CRPS ↓", 4), "psnr_changed": ("PSNR, changed pixels ↑", 2),
}  # fmt: skip
COSTS = {  # of costs.csv: (heading, format)
    "trained_parameters": ("trained parameters", lambda n: f"{n / 1e6:.2f} M" if n else "–"),
    "training_minutes": ("training, core-minutes", lambda n: f"{n:.0f}" if n else "–"),
    "seconds_per_patch": ("forecast, ms a patch", lambda n: f"{1000 * n:.0f}"),
}
NO_RIVALS = ("Oracle", "Mean colour", "Ablation")  # how the names of rows begin that no number is bold in
BLOCK = re.compile(r"(<!-- table (\w+) of ([\w/]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(row: pd.Series, column: str, digits: int, winner: float | None) -> str:
    """A number with its standard deviation over seeds, if there is one; bold if it is the best of its column."""
    if column not in row or pd.isna(row[column]):
        return "–"
    deviation, text = row.get(f"{column}_std"), f"{row[column]:.{digits}f}"
    text = f"**{text}**" if winner is not None and text == f"{winner:.{digits}f}" else text
    return text + ("" if pd.isna(deviation) else f" ± {deviation:.{digits}f}")


def best(rows: pd.DataFrame, column: str) -> float | None:
    """The best value of a column among the systems that forecast; None where there is none."""
    rivals = rows[~rows["model"].str.startswith(NO_RIVALS)]
    if column not in rows or rivals[column].isna().all():
        return None
    return rivals[column].max() if COLUMNS[column][0].endswith("↑") else rivals[column].min()


def costs(folder: Path) -> pd.DataFrame:
    """Mean cost of each model over the seeds of an experiment, by its name in the table; empty where there are none."""
    found = [pd.read_csv(file) for file in sorted(folder.glob("seed-*/costs.csv"))]
    if not found:
        return pd.DataFrame(columns=[*COSTS])
    rows = pd.concat(found)
    arms = rows["run"].str.extract(r"^ablate/(\w+)-\d+$")[0].str.replace("_", " ")
    size = rows["model"].str.extract(r"mean of (\d+)$")[0]  # the table has an ablation's ensemble only
    rows["model"] = rows["model"].where(arms.isna(), "Ablation: " + arms + ", " + size + " samples")
    return rows.groupby("model")[[*COSTS]].mean()


def table(preset: str, folder: str) -> str:
    """The Markdown table of a preset."""
    rows = pd.read_csv(REPO / folder / "table.csv")
    rows, spent = rows[rows["preset"] == preset], costs(REPO / folder)
    if folder == "reports":
        rows = rows[~rows["model"].str.startswith("Ablation")]
    winners = {column: best(rows, column) for column in COLUMNS}
    heads = [f"{preset} change", *(heading for heading, _ in COLUMNS.values())]
    heads += [heading for heading, _ in COSTS.values()] if len(spent) else []
    lines = [heads, ["---"] * len(heads)]
    for _, row in rows.iterrows():
        beside = row["model"].startswith(NO_RIVALS)
        cells = [number(row, name, digits, None if beside else winners[name]) for name, (_, digits) in COLUMNS.items()]
        if len(spent):
            known = row["model"] in spent.index
            cells += [say(spent.loc[row["model"], name]) if known else "–" for name, (_, say) in COSTS.items()]
        lines.append([row["model"], *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def filled(text: str) -> str:
    """README's text with its tables as the CSVs have them now."""
    return BLOCK.sub(lambda block: block[1] + table(block[2], block[3]) + block[4], text)


if __name__ == "__main__":
    readme = REPO / "README.md"
    readme.write_text(filled(readme.read_text()))
