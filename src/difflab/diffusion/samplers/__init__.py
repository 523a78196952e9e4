"""Samplers, with one interface: (denoiser, process, initial noise, noise source, hook, part) -> sample."""
