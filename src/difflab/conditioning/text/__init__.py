"""Conditioners that read captions."""
