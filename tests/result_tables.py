"""The tables of README.md and docs/results.md, from the CSV each names: `python
tests/result_tables.py` writes them anew, a test compares.

Each stands between `<!-- table PRESET of FOLDER -->`, or `<!-- short table ...`, and `<!-- end -->`.
FOLDER holds table.csv: that of the demo run, reports, or that of an experiment, experiments/<name>.
Ablations stand in the table of an experiment only.
"""

import re

import pandas as pd
from reach import REPO

from satjepa.evaluation.table import markdown_table, read_scores

PAGES = ("README.md", "docs/results.md")
COLUMNS = (
    "psnr", "ssim", "gssim", "l1", "mse", "lpips", "fid2048", "fd_vgg", "skill", "crps",
    "psnr_changed",
)  # fmt: skip
SHORT_COLUMNS = {"psnr": ("PSNR ↑", 2), "gssim": ("GSSIM ↑", 3), "lpips": ("LPIPS ↓", 3),
                 "crps": ("CRPS ↓", 4)}  # fmt: skip
SHORT_ROWS = {  # name in the CSV -> here
    "Default (persistence)": "Default (persistence)",
    "PredRNN": "PredRNN",
    "SimVP v2": "SimVP v2",
    "SD 3.5, image to image, mean of 8": "SD 3.5 (its miniature), image to image",
    "MCVD, mean of 8": "MCVD",
    "Sat-JEPA-Diff, coarse RGB as published": "Sat-JEPA-Diff, coarse RGB, as published",
    "Sat-JEPA-Diff, caption-guided as published": "Sat-JEPA-Diff, caption-guided, as published",
    "Sat-JEPA-Diff, zero-RGB, mean of 8": "**satjepa, zero-RGB, mean of 8**",
    "U-Net": "a small U-Net",
}
BLOCK = re.compile(r"(<!-- (short )?table (\w+) of ([\w/]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(preset: str, folder: str) -> str:
    """The Markdown table of a preset."""
    without = ("Ablation",) if folder == "reports" else ()
    return markdown_table(
        REPO / folder / "table.csv", preset, COLUMNS, title=f"{preset} change", without=without,
        bold=True, costs=True, notes=False,
    )  # fmt: skip


def short_table(preset: str, folder: str) -> str:
    """Its most asked rows and columns."""
    rows = pd.DataFrame(read_scores(REPO / folder / "table.csv"))
    rows = rows[rows["preset"] == preset].set_index("model")
    heads = [f"{preset} change", *(heading for heading, _ in SHORT_COLUMNS.values())]
    lines = [heads, ["---"] * len(heads)]
    for name, shown in SHORT_ROWS.items():
        cells = [f"{rows.loc[name, key]:.{digits}f}" for key, (_, digits) in SHORT_COLUMNS.items()]
        lines.append([shown, *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def filled(text: str) -> str:
    """A page's text with its tables as the CSVs have them now."""

    def fill(block: re.Match) -> str:
        make = short_table if block[2] else table
        return block[1] + make(block[3], block[4]) + block[5]

    return BLOCK.sub(fill, text)


if __name__ == "__main__":
    for name in PAGES:
        page = REPO / name
        page.write_text(filled(page.read_text()))
