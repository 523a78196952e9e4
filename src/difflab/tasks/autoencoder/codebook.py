"""How the codes of a codebook are used in training, and a new place for those that are not."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.networks.autoencoder.quantizer import usage_of_counts
from difflab.tasks.gathering import gathered


class CodeCounts:
    """Counts how often each of `size` codes occurs, on the device of the codes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._counts: Tensor | None = None

    def add(self, codes: Tensor) -> None:
        """codes: int64 [...]."""
        found = torch.bincount(codes.flatten(), minlength=self.size).double()
        self._counts = found if self._counts is None else self._counts.to(found.device) + found

    def counts(self) -> Tensor:
        """The counts since the last `pop`, float64 [size]."""
        return torch.zeros(self.size, dtype=torch.float64) if self._counts is None else self._counts

    def pop(self) -> Tensor:
        """Returns the counts and resets them."""
        counts, self._counts = self.counts(), None
        return counts

    def restore(self, counts: Tensor) -> None:
        """Continues from the `counts` of another one."""
        self._counts = counts.clone()


def usage_means(counts: Tensor, prefix: str) -> dict[str, float]:
    """Counts [size] of all processes -> `<prefix>/perplexity` and `<prefix>/codes_used`, the share of the codes that
    occur at all; nothing if none was counted."""
    if not int(counts.sum()):
        return {}
    found = usage_of_counts(counts)
    return {
        f"{prefix}/perplexity": float(found.perplexity),
        f"{prefix}/codes_used": int(found.used) / len(counts),
    }


@torch.no_grad()
def restart_dead_codes(codebook: Tensor, counts: Tensor, latents: Tensor, seed: int) -> int:
    """Puts every code that does not occur onto a random place of the latents of all processes; returns how many
    (Dhariwal et al. 2020, Jukebox, section 3.1; the latents are those of one batch).

    codebook: [size, C], changed in place, equally on all processes. counts: [size], of all processes.
    latents:  [B, C, h, w], before quantisation, of this process; every process has to call this, with as many.
    """
    dead = (counts == 0).nonzero().flatten().to(codebook.device)
    if not len(dead):
        return 0
    places = gathered(latents.detach().movedim(1, -1).reshape(-1, latents.shape[1]))
    # On the CPU, so that the choice does not depend on the device.
    draw = torch.randint(len(places), (len(dead),), generator=torch.Generator().manual_seed(seed))
    codebook[dead] = places[draw.to(places.device)].to(codebook)
    return len(dead)
