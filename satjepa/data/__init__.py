"""From GeoTIFFs to batches.

`tiff`, `bands`, `holes` and `grid` < `rasters` < `remarks`, `scenes` < `cube` < `splits`, `draw` <
`pairs`. (`satjepa.demo.world` makes the demo scenes.)
"""
