"""An image by its CLIP embedding: image variation."""
