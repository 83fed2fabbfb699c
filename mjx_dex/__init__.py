"""mjx_dex: learning dexterous in-hand manipulation (Dactyl) in JAX and MuJoCo."""

from mjx_dex import variables

__version__ = "0.1.0"

variables.check()
