"""The parts that docs/extending.md shows whole are what a package can be made of."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from difflab.commands.composing import compose_and_validate
from difflab.commands.doctor import examine
from difflab.config.train import TrainConfig
from difflab.diffusion.build import build_guidance, build_loss, build_process, build_sampler
from difflab.diffusion.guidance.base import GuidanceParts
from difflab.metrics.base import Samples
from difflab.metrics.build import build_metrics
from difflab.types import Conditioning
from plugin_packages import Packages, packages  # noqa: F401 - a fixture

PAGE = Path(__file__).parents[2] / "docs/extending.md"
PARTS = {  # module: (the class of its choice, its own class, file, name in the file)
    "weighting": ("DebiasedConfig", "Debiased", "diffusion/weighting/debiased", ""),
    "sampling": ("DEISConfig", "DEIS", "sampler/deis", ""),
    "tone": ("ToneConfig", "Tone", "conditioning/tone", "@tone"),
    "guiding": ("PullConfig", "Pull", "guidance/pull", ""),
    "measuring": ("SaturationConfig", "Saturation", "metrics/saturation", "@saturation"),
}
IMPORTS = """
from typing import Annotated, ClassVar, Literal
from pydantic import Field
from difflab.config.axes import SAMPLERS
"""
TORCH = "import torch\nfrom torch import Tensor, nn\n"


def shown(name: str) -> str:
    """The block of the page with a class."""
    (block,) = re.findall(
        rf"```python\n((?:(?!```).)*class {name}\((?:(?!```).)*)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    return block


def test_what_the_page_shows_is_a_package(packages: Packages) -> None:  # noqa: F811
    files = {"my_paper/__init__.py": IMPORTS + "".join(shown(config) for config, *_ in PARTS.values())}
    for module, (_, part, file, at) in PARTS.items():
        files[f"my_paper/{module}.py"] = TORCH + shown(part)
        files[f"my_paper/conf/{file}.yaml"] = f"defaults: [{file.rpartition('/')[2]}_defaults{at}, _self_]\n"
    packages.install("my-paper", files)
    assert [finding.status for finding in examine() if finding.topic.startswith("plugin")] == ["ok"]
    chosen = [f"{group}={name}" for group, _, name in (part[2].rpartition("/") for part in PARTS.values())]
    config, _ = compose_and_validate(
        "train",
        TrainConfig,
        ["experiment=ddpm/shapes32", *chosen, "guidance.scale=3", "~sampler.eta", "sampler.steps=4"],
    )
    process = build_process(config.diffusion)
    build_loss(config.diffusion, process)
    (guidance,) = build_guidance(config.guidance, GuidanceParts(null=Conditioning()))[:1]
    assert len(guidance.prepare(torch.zeros(1, 3, 4, 4), None, None)) == 2
    assert len(build_sampler(config.sampler).levels(process)) == 5
    (metric,) = build_metrics(config.metrics).values()
    images = torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
    (result,) = metric.results(Samples(n=1, device=torch.device("cpu"), images=images))
    assert (result.metric, result.value) == ("saturation", 1.0)
