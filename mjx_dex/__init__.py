"""mjx_dex: learning dexterous in-hand manipulation (Dactyl) in JAX and MuJoCo."""

__version__ = "0.1.0"
