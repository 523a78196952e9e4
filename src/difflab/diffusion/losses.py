"""Training losses of one step, per item."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.tables import check_choice
from difflab.diffusion.vlb import mean_flat, vb_terms_bpd
from difflab.diffusion.weighting import LossWeighting

LossKind = Literal["mse", "l1", "kl", "rescaled_kl", "hybrid", "hybrid_unscaled"]


class DiffusionLoss:
    """What a network output costs, per item of the batch.

    mse:              mean squared error of the prediction; L_simple of DDPM, eq. 14.
    l1:               mean absolute error (SR3).
    kl:               one term of the bound, in bits per dimension; DDPM eq. 5.
    rescaled_kl:      that times T, an estimate of the whole bound.
    hybrid:           mse + vlb_lambda T times the term of the bound, whose gradient reaches only the variance; L_hybrid
                      of Improved DDPM, eq. 16, where lambda = 0.001 keeps the bound from overwhelming the rest.
    hybrid_unscaled:  the same with the factor 1 for any T (ADM's released models; the same thing at T = 1000).

    Raises ValueError where the loss would leave a learned variance untrained, or trains one that does not exist.
    """

    def __init__(
        self,
        process: Process,
        kind: LossKind = "mse",
        weighting: LossWeighting | None = None,
        vlb_lambda: float = 0.001,
    ) -> None:
        """weighting: of the squared error in mse and the hybrids; None counts every level alike."""
        check_choice("loss", kind, LossKind)
        weighting = weighting or LossWeighting()
        if weighting.kind != "none" and kind in ("l1", "kl", "rescaled_kl"):
            raise ValueError(
                f"weighting={weighting.kind} weighs a squared error, loss={kind} has none: use weighting=none"
            )
        if kind not in ("mse", "l1") and not isinstance(process, GaussianProcess):
            raise ValueError(f"loss={kind} is a bound on a table of steps; in continuous time use loss=mse")
        hybrid = kind in ("hybrid", "hybrid_unscaled")
        if process.learns_variance and kind in ("mse", "l1"):
            raise ValueError(
                f"loss={kind} does not train variance={process.variance}: use loss=hybrid, or a fixed variance"
            )
        if hybrid and not process.learns_variance:
            raise ValueError(f"loss={kind} needs a learned variance, this one is {process.variance}: use loss=mse")
        self.process = process
        self.kind: LossKind = kind
        self.vlb_lambda = vlb_lambda
        self._weights = self._table(process, weighting) if isinstance(process, GaussianProcess) else None
        self._weighting = weighting

    def __call__(self, model_output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Tensors [B]: always `loss`; `mse` (or `l1`) and `vb` where they are parts of it.

        model_output: [B, C or 2C, ...]; x0, x_t and noise: [B, C, ...]; t: [B], times of the process.
        """
        if self.kind in ("kl", "rescaled_kl"):
            scale = self.process.time_span if self.kind == "rescaled_kl" else 1.0
            return {"loss": self._bound_term(model_output, x0, x_t, t) * scale}
        out, values = self.process.split_output(model_output, x_t)
        error = self.process.target(x0, noise, x_t, t) - out
        if self.kind == "l1":
            l1 = mean_flat(error.abs())
            return {"loss": l1, "l1": l1}
        mse = mean_flat(error**2)
        weight = self._weight(t, mse)
        if weight is not None:
            mse = mse * weight
        if values is None:
            return {"loss": mse, "mse": mse}
        # Detaching the mean lets the bound train the variance alone.
        vb = self._bound_term(torch.cat([out.detach(), values], dim=1), x0, x_t, t)
        if self.kind == "hybrid":
            vb = vb * (self.process.time_span / 1000.0 * (self.vlb_lambda / 0.001))
        return {"loss": mse + vb, "mse": mse, "vb": vb}

    def _weight(self, t: Tensor, like: Tensor) -> Tensor | None:
        if not isinstance(self.process, GaussianProcess) or t.is_floating_point():
            weight = self._weighting(self.process.snr(t), self.process.parametrisation)
            return None if weight is None else weight.to(like)
        if self._weights is None:
            return None
        self._weights = self._weights.to(like)
        return self._weights[t]

    @staticmethod
    def _table(process: GaussianProcess, weighting: LossWeighting) -> Tensor | None:
        rows = torch.arange(process.num_timesteps)
        return weighting(process.snr(rows), process.prediction)

    def _bound_term(self, model_output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        assert isinstance(self.process, GaussianProcess), "checked at construction"
        return vb_terms_bpd(self.process, self.process.predict(model_output, x_t, t), x0, x_t, t)
