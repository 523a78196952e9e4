"""Run by test_gather.py, once for each rank: rank, rendezvous file, world size; writes what this rank got as JSON."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from difflab.data.shapes import ShapesSource, class_names
from difflab.images import Downsampling
from difflab.metrics import gather
from difflab.metrics.config import (
    ConsistencyConfig,
    FDConfig,
    InceptionScoreConfig,
    KIDConfig,
    OracleConfig,
    PrecisionRecallConfig,
    PSNRConfig,
    SSIMConfig,
)
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.gather import all_true, gather_rows
from difflab.metrics.paired import Pairs
from difflab.metrics.reference import DataReference

rank, meeting_point, world = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
N = 25


def pictures(split, n):
    source = ShapesSource(resolution=32, n=n, split=split)
    return torch.stack([torch.from_numpy(source.sample(i)["image"]) for i in range(n)]).permute(0, 3, 1, 2)


def share(images, rows_of_rank):
    for rows in torch.arange(len(images))[rows_of_rank::world].split(4):
        yield {"image": images[rows], "index": rows, "weight": torch.ones(len(rows))}


torch.set_num_threads(1)
gather._ROWS_AT_ONCE = 4  # so that few rows travel in several parts
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=world)
metrics = {
    "fd": FDConfig(extractor="random"),
    "kid": KIDConfig(extractor="random", subsets=3, subset_size=10),
    "pr": PrecisionRecallConfig(extractor="random"),
    "is": InceptionScoreConfig(extractor="random", splits=2),
    "oracle": OracleConfig(),
    "psnr": PSNRConfig(),
    "ssim": SSIMConfig(),
    "consistency": ConsistencyConfig(),
}
data = pictures("train", 31)
reference = DataReference("shapes", "abc", "train", "none", 31, lambda limit: share(data, rank), 4 * world)
samples = pictures("test", N)
labels = torch.arange(N) % 6
pairs = Pairs(lambda indices: {"original": data[indices]}, tuple(samples.shape[1:]), Downsampling(8, "bicubic"))


def results_of(uneven):
    """Every second sample to each rank, or all of them to the last one."""
    evaluator = Evaluator(metrics, n=N, reference=reference, class_names=class_names(), pairs=pairs)
    mine = range(rank, N, world) if not uneven else range(N if rank == world - 1 else 0)
    for start in range(0, len(mine), 8):
        index = torch.tensor(list(mine[start : start + 8]), dtype=torch.int64)
        evaluator.update(samples[index], index, label=labels[index])
    return {result.key: [result.value, result.spread, result.protocol.hash] for result in evaluator.compute()}


answer = {
    "even": results_of(uneven=False),
    "uneven": results_of(uneven=True),
    "rows": gather_rows(torch.full((rank, 2), rank)).tolist(),
    "agreed": [all_true(True), all_true(rank == 0)],
}
meeting_point.with_suffix(f".{world}.{rank}.json").write_text(json.dumps(answer))
if world > 1:
    dist.destroy_process_group()
# Now and then an interpreter that ends after gloo aborts (torch 2.14); what is tested here is done by then.
os._exit(0)
