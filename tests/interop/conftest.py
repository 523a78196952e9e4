from clip_runs import small_clip
from tiny_runs import own_run, tiny_run

__all__ = ["own_run", "small_clip", "tiny_run"]
