"""Autoencoders of images, regularised by a Gaussian prior or by a codebook: the first stages of latent diffusion."""
