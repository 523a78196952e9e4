"""Maps of classes, one for each pixel: semantic map to image."""
