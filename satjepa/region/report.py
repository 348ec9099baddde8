"""What a region was made of, year by year, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from satjepa.paths import write_text

REPORT = "report.json"


def offsets_of(record: dict[str, Any]) -> str:
    """The offsets of a year's images in words: "12 x -1000, 3 x +0; 2 against their metadata"."""
    counts = Counter(item["offset"] for item in record["items"])
    text = ", ".join(f"{count} x {value:+d}" for value, count in sorted(counts.items())) or "none"
    against = sum(item["against_metadata"] for item in record["items"])
    return f"{text}; {against} against their metadata" if against else text


def report_table(records: list[dict[str, Any]]) -> str:
    """The years as lines of text: images used and left out, valid share, offsets, what is wrong."""
    lines = ["year  images  left out  valid  offsets in DN"]
    for record in records:
        wrong = f"  REFUSED: {record['refused']}" if record.get("refused") else ""
        lines.append(
            f"{record['year']}  {len(record['items']):6d}  {len(record['left_out']):8d}  "
            f"{record['valid_share']:5.1%}  {offsets_of(record)}{wrong}"
        )
    return "\n".join(lines)


def write_report(folder: Path, records: list[dict[str, Any]]) -> Path:
    """Write the records of a region as JSON into its folder; those of other years that stand there
    already stay.
    """
    path = folder / REPORT
    years = {}
    if path.is_file():
        try:
            years = json.loads(path.read_text(encoding="utf-8"))["years"]
        except (ValueError, KeyError, TypeError):
            years = {}  # no report of ours
    years |= {str(record["year"]): record for record in records}
    ordered = {year: years[year] for year in sorted(years)}
    write_text(path, json.dumps({"region": folder.name, "years": ordered}, indent=1) + "\n")
    return path
