"""The tables of README.md, from reports/table.csv: `python tests/readme_table.py` writes them anew, a test compares.

Each stands between `<!-- table PRESET -->` and `<!-- end -->`. Ablations are left to notebook 06.
"""

import re

import pandas as pd
from reach import REPO

COLUMNS = {  # of the CSV: (heading, digits)
    "psnr": ("PSNR ↑", 2), "ssim": ("SSIM ↑", 3), "gssim": ("GSSIM ↑", 3), "l1": ("L1 ↓", 4), "mse": ("MSE ↓", 4),
    "lpips": ("LPIPS (VGG) ↓", 3), "fid2048": ("FID ↓", 1), "skill": ("skill ↑", 3), "crps": ("CRPS ↓", 4),
    "psnr_changed": ("PSNR, changed pixels ↑", 2),
}  # fmt: skip
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(row: pd.Series, column: str, digits: int) -> str:
    """A number with its standard deviation over seeds, if there is one."""
    if column not in row or pd.isna(row[column]):
        return "–"
    deviation = row.get(f"{column}_std")
    return f"{row[column]:.{digits}f}" + ("" if pd.isna(deviation) else f" ± {deviation:.{digits}f}")


def table(preset: str) -> str:
    """The Markdown table of a preset."""
    rows = pd.read_csv(REPO / "reports/table.csv")
    rows = rows[(rows["preset"] == preset) & ~rows["model"].str.startswith("Ablation")]
    heads = [f"{preset} change", *(heading for heading, _ in COLUMNS.values())]
    lines = [heads, ["---"] * len(heads)]
    for _, row in rows.iterrows():
        lines.append([row["model"], *(number(row, column, digits) for column, (_, digits) in COLUMNS.items())])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def filled(text: str) -> str:
    """README's text with its tables as the CSV has them now."""
    return BLOCK.sub(lambda block: block[1] + table(block[2]) + block[3], text)


if __name__ == "__main__":
    readme = REPO / "README.md"
    readme.write_text(filled(readme.read_text()))
