"""Frozen autoencoders, in whose latents a model diffuses."""
