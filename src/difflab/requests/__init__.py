"""Requests: what samples should show (classes, captions, images, embeddings), by sample index and seed."""
