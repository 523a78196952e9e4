"""The contrastive task: CLIP."""
