"""Run by two processes (see test_two_ranks): each trains the small autoencoders under DDP and writes what came out to
<folder>/<scenario>/<rank>.pt. Arguments: the folder, and that of the data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from difflab.callbacks.guard import NonFiniteGuard
from difflab.callbacks.training_log import TrainingLog
from difflab.commands.processes import leave_process_group
from tasks.autoencoder.scenarios import SCENARIOS
from tasks.toys import fit

if __name__ == "__main__":
    for name, make in SCENARIOS.items():
        target = Path(sys.argv[1]) / name
        target.mkdir(exist_ok=True)
        module = make()
        fit(module, Path(sys.argv[2]), target, [NonFiniteGuard(), TrainingLog(100)], devices=2, strategy="ddp")
        found = {"weights": module.state_dict(), "step": module.train_step, "means": module.training_means()}
        torch.save(found, target / f"{os.environ['RANK']}.pt")
    leave_process_group()
    # Now and then an interpreter that ends after gloo aborts (torch 2.14); what is tested here is done by then.
    os._exit(0)
