"""The tables of README.md, from the CSV each names: `python tests/readme_table.py` writes them
anew, a test compares.

Each stands between `<!-- table PRESET of FOLDER -->` and `<!-- end -->`. FOLDER holds table.csv:
that of the demo run, reports, or that of an experiment, experiments/<name>. Ablations stand in the
table of an experiment only.
"""

import re

from reach import REPO

from satjepa.evaluation.table import markdown_table

COLUMNS = (
    "psnr",
    "ssim",
    "gssim",
    "l1",
    "mse",
    "lpips",
    "fid2048",
    "fd_vgg",
    "skill",
    "crps",
    "psnr_changed",
)
BLOCK = re.compile(r"(<!-- table (\w+) of ([\w/]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(preset: str, folder: str) -> str:
    """The Markdown table of a preset."""
    title = f"{preset} change"
    without = ("Ablation",) if folder == "reports" else ()
    look = {"title": title, "without": without, "bold": True, "costs": True, "notes": False}
    return markdown_table(REPO / folder / "table.csv", preset, COLUMNS, **look)


def filled(text: str) -> str:
    """README's text with its tables as the CSVs have them now."""
    return BLOCK.sub(lambda block: block[1] + table(block[2], block[3]) + block[4], text)


if __name__ == "__main__":
    readme = REPO / "README.md"
    readme.write_text(filled(readme.read_text()))
