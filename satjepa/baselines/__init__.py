"""What a forecast is compared with. Every baseline is a `Forecaster`, as our model is: evaluation
has one loop.
"""
