"""The autoencoder task: first stages of latent diffusion, with a KL divergence or a codebook."""
