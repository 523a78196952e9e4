"""How photographs are degraded: random blur, resampling, noise and JPEG, for super-resolution of real images."""
