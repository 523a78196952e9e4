"""Conditioning on the known part of an image."""
