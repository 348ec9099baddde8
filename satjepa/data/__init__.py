"""From GeoTIFFs to batches: `rasters` < `scenes` < `cube` < `splits` < `pairs` (`world` makes the
demo scenes).
"""
