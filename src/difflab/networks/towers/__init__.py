"""Towers that embed images and texts, and CLIP, which has one of each."""
