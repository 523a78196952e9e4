"""Networks whose features distances between images are made of."""
