"""Guidance: modifications of the predictions within a step."""
