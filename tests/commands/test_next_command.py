"""The command to try after an import names what such a model has to be given."""

from __future__ import annotations

from pathlib import Path

import pytest

from difflab.commands.next_command import next_command
from difflab.commands.weights_latent import model_of_experiment

PROMPTS = "'prompts=[\"a red circle\"]'"


@pytest.mark.parametrize(
    ("experiment", "command"),
    [
        ("ddpm/shapes32", "sample run=ours n=4"),
        ("cfg/shapes32", "sample run=ours n=4"),
        ("sr3/shapes32", "sample run=ours n=4 low_res=FOLDER"),
        ("glide/shapes32", f"sample run=ours n=4 {PROMPTS}"),
        ("ldm/shapes64_text", f"sample run=ours n=4 {PROMPTS}"),
        ("ldm/shapes64_text_encoder", f"sample run=ours n=4 {PROMPTS}"),
        ("ldm/shapes64_inpainting", f"sample run=ours n=4 {PROMPTS} images=FOLDER"),
        ("ldm/shapes64_layout", "sample run=ours n=4 request=FILE.jsonl"),
        ("ldm/shapes64_semantic", "sample run=ours n=4 request=FILE.jsonl"),
        ("ldm/shapes64_variations", "sample run=ours n=4 images=FOLDER"),
        ("adm/shapes32_classifier", "sample run=... guidance=classifier guidance.run=ours"),
        ("clip/shapes32", "weights inspect ours"),
    ],
)
def test_of_a_model(experiment: str, command: str) -> None:
    assert next_command(model_of_experiment(experiment), Path("ours")) == f"difflab {command}"
