"""`satjepa ...`: one subcommand per job, each a few lines around the module that does it.

Errors that satjepa raises are one message on stderr and exit status 2; other errors are bugs and
keep their traceback. `common` has the application, the other modules a group of commands each.
"""

from satjepa.cli import captions, common, data, forecast, page, rasters, runs
from satjepa.cli.common import app

__all__ = ["app", "captions", "common", "data", "forecast", "page", "rasters", "runs"]
