"""What conditioners share whose tokens a transformer of latent diffusion makes."""
