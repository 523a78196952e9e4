"""Noise levels: those that a network is trained on, and those that a sampler visits."""
