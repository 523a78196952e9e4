"""What a network's output means at one noise level: x0 and eps as linear views of the input and the output."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

Parametrisation = Literal["eps", "x0", "v", "edm", "ve"]
"""What the network regresses.

eps: the noise (DDPM). x0: the clean image. v: alpha eps - sigma x0 (Salimans and Ho 2022).
edm: x0 less the part of it that the input tells already, at unit variance (Karras et al. 2022, table 1).
ve:  the score's direction, -eps, of an input that is not scaled down (EDM table 1, column VE).
"""

Number = float | Tensor


def nearest_view(kind: Parametrisation) -> Literal["eps", "x0", "v"]:
    """The view that what the network regresses is closest to: of EDM's prediction x0, of VE's eps."""
    if kind == "edm":
        return "x0"
    return "eps" if kind == "ve" else kind


class Views(NamedTuple):
    """x0 = x0_x x + x0_out F and eps = eps_x x + eps_out F, for an input x = alpha x0 + sigma eps and an output F."""

    x0_x: float | Tensor
    x0_out: float | Tensor
    eps_x: float | Tensor
    eps_out: float | Tensor


def views(kind: Parametrisation, alpha: Number, sigma: Number, sigma_data: float = 0.5) -> Views:
    """The views at one level, alpha and sigma floats or tensors alike; EDM eq. 7 and table 1 in these coordinates.

    Both are made from closed forms, so neither loses digits where sigma is small.
    """
    if kind == "eps":
        return Views(1.0 / alpha, -sigma / alpha, 0.0, 1.0)
    if kind == "x0":
        return Views(0.0, 1.0, 1.0 / sigma, -alpha / sigma)
    if kind == "v":
        return Views(alpha, -sigma, sigma, alpha)
    if kind == "ve":
        return Views(1.0 / alpha, sigma / alpha, 0.0, -1.0)
    # EDM's sigma is sigma / alpha here, and its x is x / alpha.
    total = sigma**2 + (alpha * sigma_data) ** 2
    root = total**0.5
    return Views(alpha * sigma_data**2 / total, sigma * sigma_data / root, sigma / total, -alpha * sigma_data / root)


def input_scale(kind: Parametrisation, alpha: Number, sigma: Number, sigma_data: float = 0.5) -> Number:
    """What the input is multiplied with before the network sees it (c_in of EDM table 1, of x / alpha)."""
    if kind == "edm":
        return 1.0 / (sigma**2 + (alpha * sigma_data) ** 2) ** 0.5
    return 1.0 / alpha if kind == "ve" else 1.0


def target(kind: Parametrisation, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """What the network regresses, [B, ...], given x0 and noise of that shape; alpha and sigma broadcast."""
    if kind == "eps":
        return noise
    if kind == "x0":
        return x0
    if kind == "v":
        return alpha * noise - sigma * x0
    if kind == "ve":
        return -noise
    # (x0 - c_skip x) / c_out, with x0 taken out of x first: exact at both ends.
    root = (sigma**2 + (alpha * sigma_data) ** 2) ** 0.5
    return (sigma * x0 - alpha * sigma_data**2 * noise) / (sigma_data * root)
