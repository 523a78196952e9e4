"""What a message advises is tried: the command with the advice is a good one."""

from __future__ import annotations

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.errors import UserError

SMALL = ["experiment=ddpm/shapes32"]
LEARNED = ["diffusion.variance=learned_range", "diffusion.loss=hybrid"]

CASES = [
    (["callbacks.checkpoint=null"], ["callbacks.preemption=null"]),
    (["+callbacks.evaluation={every_steps: null, at_end: false}"], ["callbacks.evaluation=null"]),
    (["callbacks=evaluation", "metrics=none"], ["metrics=shapes"]),
    (["callbacks=evaluation", "metrics=none"], ["callbacks.evaluation=null"]),
    (["trainer.accelerator=cpu", "trainer.precision=16-mixed"], ["trainer.precision=32-true"]),
    (["guidance.scale=3.0"], ["guidance=classifier_free"]),
    (["diffusion.variance=learned_range", "diffusion.loss=mse"], ["diffusion.loss=hybrid"]),
    (["diffusion.variance=learned_range", "diffusion.loss=mse"], ["diffusion.variance=fixed_large"]),
    (["diffusion.variance=fixed_large", "diffusion.loss=hybrid"], ["diffusion.variance=learned_range"]),
    (["diffusion.variance=fixed_large", "diffusion.loss=hybrid"], ["diffusion.loss=mse"]),
    (["diffusion.loss=l1", "diffusion.weighting=min_snr"], ["diffusion.weighting=none"]),
    (["+conditioning.low_res={kind: low_res, size: 8}"], ["network.concat_channels=3"]),
    (["network.concat_channels=3"], ["network.concat_channels=0"]),
    (["data.fields=[label]", "data.classes=null"], ["data.classes=6"]),
    (["data.val_split=train"], ["data.val_split=null"]),
    (["optimizer.betas=[0.9]"], ["optimizer.betas=[0.9,0.999]"]),
    (["experiment=adm/shapes32_classifier", "callbacks=default"], ["callbacks=classifier"]),
    (["task=denoising", "network=adm_classifier_small"], ["task=noisy_classifier"]),
    (["task=noisy_classifier", "network=unet_small"], ["task=denoising"]),
]


@pytest.mark.parametrize(("mistake", "advice"), CASES, ids=lambda value: " ".join(value[-1:]))
def test_the_advice_makes_a_good_command(mistake: list[str], advice: list[str]) -> None:
    given = mistake if mistake[0].startswith(("experiment=", "task=")) else [*SMALL, *mistake]
    with pytest.raises(UserError) as error:
        compose_and_validate("train", TrainConfig, given)
    for override in advice:
        key, value = override.split("=", 1)
        # The part of the configuration stands in front of the message.
        leaf = key.rsplit(".", 1)[-1]
        assert leaf in str(error.value), str(error.value)
        assert value in str(error.value) or value == "6", str(error.value)
    changed = {override.split("=")[0] for override in advice}
    kept = [override for override in given if override.split("=")[0].lstrip("+") not in changed]
    kept = [o for o in kept if not any(o.startswith(f"{key}.") for key in changed if key == "callbacks")]
    compose_and_validate("train", TrainConfig, [*kept, *advice])
