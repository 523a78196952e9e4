"""Boxes with phrases as tokens: layout to image."""
