"""The image tower of a stored CLIP, as a frozen part of other models."""
