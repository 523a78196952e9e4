"""Drawings of emoji as a source."""
