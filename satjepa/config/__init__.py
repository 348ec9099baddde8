"""The configuration: `load_params()` reads and checks params.yaml; every mistake is a
`ConfigError`.
"""

from satjepa.config.params import Params, digest, from_dict, load_params
from satjepa.config.typed import ConfigError

__all__ = ["ConfigError", "Params", "digest", "from_dict", "load_params"]
