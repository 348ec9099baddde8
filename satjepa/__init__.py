"""satjepa: forecasts next year's Sentinel-2 image of a place from its past."""

__version__ = "0.1.0"
