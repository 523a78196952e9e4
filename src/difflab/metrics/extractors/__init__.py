"""Networks whose features are used by distances between sets of images."""
