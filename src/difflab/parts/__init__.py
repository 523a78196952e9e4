"""Which parts of a model are trained, averaged, saved and loaded."""
