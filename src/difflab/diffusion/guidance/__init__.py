"""Guidance: what is done around the predictions of a step."""
