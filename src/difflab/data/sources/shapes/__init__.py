"""Procedural scenes of coloured shapes as a source."""
