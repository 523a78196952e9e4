"""Training losses of one step, per item of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, cast

import torch
from torch import Tensor

from difflab.config.axes import WEIGHTINGS
from difflab.diffusion.base_process import Process
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.tables import check_choice
from difflab.diffusion.vlb import mean_flat, vb_terms_bpd
from difflab.diffusion.weighting import LossWeighting

if TYPE_CHECKING:
    from difflab.config.diffusion import DiffusionBase

LossKind = Literal["mse", "l1", "kl", "rescaled_kl", "hybrid", "hybrid_unscaled"]


class Loss(Protocol):
    """The training loss of a network output."""

    def __call__(self, model_output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns tensors [B]: always `loss`, and its parts.

        model_output: [B, C or 2C, ...]; x0, x_t and noise: [B, C, ...]; t: [B], times of the process.
        """
        ...


class DiffusionLoss:
    """The training loss of a network output, per item of the batch.

    mse:              mean squared error of the prediction; L_simple of DDPM, eq. 14.
    l1:               mean absolute error (SR3).
    kl:               one term of the bound, in bits per dimension; DDPM eq. 5.
    rescaled_kl:      kl times T, an estimate of the whole bound.
    hybrid:           mse + vlb_lambda T times the term of the bound, whose gradient reaches only the variance; L_hybrid
                      of Improved DDPM, eq. 16, where lambda = 0.001 keeps the bound from dominating.
    hybrid_unscaled:  the same with factor 1 for any T (ADM's released models; identical at T = 1000).

    Raises ValueError if the loss would leave a learned variance untrained, or needs one and there is none.
    """

    def __init__(
        self,
        process: Process,
        kind: LossKind = "mse",
        weighting: LossWeighting | None = None,
        vlb_lambda: float = 0.001,
    ) -> None:
        """weighting: weights of the squared error in mse and the hybrids; None weights all levels equally."""
        check_choice("loss", kind, LossKind)
        if weighting is not None and kind in ("l1", "kl", "rescaled_kl"):
            raise ValueError(
                f"weighting={weighting.name} weights a squared error, but loss={kind} has none: use weighting=none"
            )
        if kind not in ("mse", "l1") and process.table is None:
            raise ValueError(f"loss={kind} is a bound on a table of steps; in continuous time use loss=mse")
        hybrid = kind in ("hybrid", "hybrid_unscaled")
        if process.learns_variance and kind in ("mse", "l1"):
            raise ValueError(
                f"loss={kind} does not train variance={process.variance}: use loss=hybrid, or a fixed variance"
            )
        if hybrid and not process.learns_variance:
            raise ValueError(f"loss={kind} needs a learned variance, not variance={process.variance}: use loss=mse")
        self.process = process
        self.kind: LossKind = kind
        self.vlb_lambda = vlb_lambda
        self._weighting = weighting
        self._weights = self._of_rows(process.table) if process.table is not None else None

    @classmethod
    def from_config(cls, config: DiffusionBase, process: Process) -> DiffusionLoss:
        weighting = WEIGHTINGS.builder(config.weighting)(config.weighting, process)
        return cls(process, cast("LossKind", config.loss), weighting, getattr(config, "vlb_lambda", 0.0))

    def __call__(self, model_output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns tensors [B]: always `loss`; `mse` (or `l1`) and `vb` if they are part of it.

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
        if self._weighting is None:
            return None
        if self._weights is None or t.is_floating_point():
            return self._weighting(self.process.snr(t), self.process.prediction).to(like)
        self._weights = self._weights.to(like)
        return self._weights[t]

    def _of_rows(self, table: GaussianProcess) -> Tensor | None:
        if self._weighting is None:
            return None
        return self._weighting(table.snr(torch.arange(table.num_timesteps)), table.prediction)

    def _bound_term(self, model_output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        table = self.process.table
        assert table is not None, "checked at construction"
        return vb_terms_bpd(table, table.predict(model_output, x_t, t), x0, x_t, t)
