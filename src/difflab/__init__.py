"""difflab: one laboratory for ten diffusion papers."""

__version__ = "0.1.0"
