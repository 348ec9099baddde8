"""Rows of scores to CSV: what every run leaves."""

import json
from pathlib import Path

import pandas as pd


def write_table(rows: list[dict], path: str | Path, settings: dict | None = None) -> None:
    """Rows to a CSV (missing values empty), and what the numbers depend on beside it in `<name>.settings.json`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False, float_format="%.8g")
    if settings is not None:
        path.with_suffix(".settings.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
