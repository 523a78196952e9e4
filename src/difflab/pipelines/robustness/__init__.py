"""Images that are harder to classify: corrupted, or changed by an adversary."""
