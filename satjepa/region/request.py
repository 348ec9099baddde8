"""What is asked for, checked before anything is fetched: a box, years, months of the season."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from satjepa.region.errors import BoxError, TooLargeError, YearError

FIRST_YEAR = 2015  # the first images of Sentinel-2A are of June 2015
MOST_DEGREES = 6.0  # of a box, east to west or south to north: what one UTM zone is meant for
NORTHERNMOST = 84.0  # UTM ends here, and at as many degrees south
TROPIC = 23.5  # degrees
POLEWARDS = 60.0  # degrees of latitude from which the season is short


@dataclass(frozen=True)
class Box:
    """A bounding box in degrees of longitude and latitude. `west` is more than `east` where the
    box crosses the antimeridian.
    """

    west: float
    south: float
    east: float
    north: float

    @property
    def width(self) -> float:
        """Degrees of longitude."""
        return (self.east - self.west) % 360 or 360.0

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude in [-180, 180) and latitude."""
        lon = (self.west + self.width / 2 + 180) % 360 - 180
        return lon, (self.south + self.north) / 2

    @property
    def parts(self) -> list[tuple[float, float, float, float]]:
        """The box as (west, south, east, north); two of them where it crosses the antimeridian,
        as a search wants it.
        """
        if self.west < self.east:
            return [(self.west, self.south, self.east, self.north)]
        return [
            (self.west, self.south, 180.0, self.north),
            (-180.0, self.south, self.east, self.north),
        ]

    def __str__(self) -> str:
        return f"{self.west:g} {self.south:g} {self.east:g} {self.north:g}"


def parse_box(values: Sequence[float]) -> Box:
    """West, south, east and north in degrees. Raises BoxError, TooLargeError."""
    box = Box(*(float(value) for value in values))
    order = "a box is W S E N: west south east north, in degrees"
    if not all(math.isfinite(value) for value in values):
        raise BoxError(f"bbox {box}: not four finite numbers; {order}")
    if not (-180 <= box.west <= 180 and -180 <= box.east <= 180):
        raise BoxError(f"bbox {box}: a longitude outside -180 to 180; {order}")
    if not (-90 <= box.south <= 90 and -90 <= box.north <= 90):
        raise BoxError(f"bbox {box}: a latitude outside -90 to 90; {order}")
    if box.south >= box.north:
        raise BoxError(f"bbox {box}: its south is not below its north; {order}")
    if box.west == box.east or (box.west > box.east and box.west - box.east < 180):
        raise BoxError(f"bbox {box}: its west is not left of its east; {order}")
    if max(abs(box.south), abs(box.north)) > NORTHERNMOST:
        raise BoxError(f"bbox {box}: beyond {NORTHERNMOST:g} degrees, where UTM ends")
    if max(box.width, box.north - box.south) > MOST_DEGREES:
        raise TooLargeError(
            f"bbox {box}: {box.width:g} x {box.north - box.south:g} degrees, and one UTM grid "
            f"holds {MOST_DEGREES:g}: ask for several regions"
        )
    return box


def name_of(box: Box) -> str:
    """A name for the region of a box, made from the coordinates of its centre: N50p500E006p000."""
    lon, lat = box.centre
    north = f"{'N' if lat >= 0 else 'S'}{abs(lat):06.3f}"
    east = f"{'E' if lon >= 0 else 'W'}{abs(lon):07.3f}"
    return f"{north}{east}".replace(".", "p")


def check_name(name: str) -> str:
    """A name that can be a folder of the published layout. Raises BoxError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise BoxError(f"name {name!r}: use letters, digits and hyphens, as in Lake-Chad")
    return name


def _numbers(text: str) -> list[int]:
    """Numbers as in "2017-2020" or "2017,2019-2020", in that order. Raises YearError."""
    numbers: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise YearError(f"years {text!r}: write them as 2017-2024 or 2017,2019")
        first = int(match[1])
        last = int(match[2] or match[1])
        if last < first:
            raise YearError(f"years {text!r}: the first of a range is after its last")
        numbers += range(first, last + 1)
    return numbers


def parse_years(text: str, today: datetime.date | None = None) -> list[int]:
    """Years as in "2017-2024", sorted. Raises YearError for what is none, before Sentinel-2 or in
    the future.
    """
    now = (today or datetime.date.today()).year
    years = sorted(set(_numbers(text)))
    if years[0] < FIRST_YEAR:
        raise YearError(f"years {text!r}: Sentinel-2 flies since {FIRST_YEAR}")
    if years[-1] > now:
        raise YearError(f"years {text!r}: {years[-1]} has not been yet; the last is {now}")
    return years


@dataclass(frozen=True)
class Season:
    """The months whose images a composite is made of, in order. Where they run over New Year, as
    11 to 3, the season of a year is the one that ends in it.
    """

    first: int
    last: int
    reason: str = "as asked for"

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def dates(self, year: int) -> tuple[datetime.date, datetime.date]:
        """First and last day of the season of a year."""
        start = datetime.date(year - (self.first > self.last), self.first, 1)
        after = datetime.date(year + self.last // 12, self.last % 12 + 1, 1)
        return start, after - datetime.timedelta(days=1)


def parse_months(text: str | None, box: Box) -> Season:
    """The season as in "5-9" or "11-3", or the growing season usual at the latitude of the box:
    all year within the tropics, May to September in the north and November to March in the south
    of them, June to August and December to February from 60 degrees on. Raises YearError.
    """
    if text is not None:
        match = re.fullmatch(r"\s*(\d{1,2})(?:\s*-\s*(\d{1,2}))?\s*", text)
        months = [int(match[1]), int(match[2] or match[1])] if match else [0]
        if not all(1 <= month <= 12 for month in months):
            raise YearError(f"months {text!r}: write first and last, as 5-9 or 11-3")
        return Season(*months)
    lat = box.centre[1]
    reason = f"the growing season usual at latitude {lat:.1f}"
    if abs(lat) < TROPIC:
        return Season(1, 12, reason)
    if abs(lat) < POLEWARDS:
        return Season(5, 9, reason) if lat > 0 else Season(11, 3, reason)
    return Season(6, 8, reason) if lat > 0 else Season(12, 2, reason)


def check_begun(season: Season, years: Sequence[int], today: datetime.date | None = None) -> None:
    """Raises YearError where the season of the last year has not begun yet."""
    start, _ = season.dates(max(years))
    if start > (today or datetime.date.today()):
        raise YearError(f"{max(years)}: its season begins on {start}; leave the year out")
