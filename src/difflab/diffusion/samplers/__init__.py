"""Samplers: one call for all of them, (denoiser, process, start noise, noise source, hook, part) -> sample."""
