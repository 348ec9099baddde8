"""The networks: I-JEPA, caption forecaster, adapter, SD 3 backbone, and `SatJepa`, which joins
them.
"""
