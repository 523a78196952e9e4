"""A two-alternative forced choice between a model's output and the original: a page and its results."""
