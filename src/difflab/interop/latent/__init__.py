"""Whole latent diffusion models in and out: the denoiser with its first stage, text encoder and process."""
