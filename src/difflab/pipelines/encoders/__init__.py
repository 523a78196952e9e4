"""The encoders of `difflab data encode`."""
