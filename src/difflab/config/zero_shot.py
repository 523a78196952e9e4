"""The configuration of `difflab zero-shot`: a stored CLIP, real images, and prompts for their classes."""

from __future__ import annotations

from difflab.config.clip import PromptedConfig


class ZeroShotConfig(PromptedConfig):
    """`difflab zero-shot`.

    out: where the records go; null = <run>/evaluations/zero-shot-<split>-n<n>-<hash of the rest>. They are also added
        to the run's evaluations.jsonl.
    """
