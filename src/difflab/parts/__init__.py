"""What of a model is trained, averaged, saved and loaded."""
