"""A directory of image files as a source."""
