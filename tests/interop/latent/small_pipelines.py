"""Small pipelines of diffusers with drawn weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from difflab.interop.latent.clip_tokenizer import TextTokenizer, _content
from difflab.text.byte_pairs import WORD_END, byte_characters
from difflab.text.clip import END, START

UNET: dict[str, Any] = {
    "sample_size": 8, "block_out_channels": [32, 64], "layers_per_block": 1, "cross_attention_dim": 32,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 2,
}  # fmt: skip
SD2: dict[str, Any] = {"attention_head_dim": [2, 4], "use_linear_projection": True}
VAE: dict[str, Any] = {
    "block_out_channels": [32, 64], "latent_channels": 4, "sample_size": 16, "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
}  # fmt: skip
PNDM: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True,
    "steps_offset": 1,
}  # fmt: skip
DDIM: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "clip_sample": False, "set_alpha_to_one": False,
}  # fmt: skip


def small_tokenizer(padding: str = END) -> TextTokenizer:
    """CLIP's tokenizer with four of its merges."""
    merges = [("c", "a"), ("r", "e"), ("ca", "t" + WORD_END), ("re", "d" + WORD_END)]
    characters = list(byte_characters().values())
    tokens = [*characters, *(c + WORD_END for c in characters), *map("".join, merges), START, END]
    return TextTokenizer(_content({token: number for number, token in enumerate(tokens)}, merges), padding)


def tokenizer_folder(folder: Path, padding: str, names: tuple[str, ...] | None = None) -> Path:
    folder.mkdir(parents=True)
    for name, content in small_tokenizer(padding).files(77).items():
        if names is None or name in names:
            (folder / name).write_bytes(content)
    return folder


def small_pipeline(folder: Path, scheduler: Any, padding: str = END, act: str = "quick_gelu", **unet: Any) -> Any:
    """A pipeline, whose tokenizer is read from a folder beside."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(
        tokenizer_folder(folder, padding, ("vocab.json", "merges.txt", "tokenizer_config.json"))
    )
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=small_tokenizer().vocabulary, hidden_size=32, intermediate_size=37, num_hidden_layers=2,
            num_attention_heads=4, hidden_act=act, bos_token_id=516, eos_token_id=517,
        )
    )  # fmt: skip
    parts = (UNet2DConditionModel(**UNET | unet), AutoencoderKL(**VAE), text)
    for part in parts:
        for parameter in part.parameters():
            parameter.data.normal_(std=0.08)
        part.eval()
    pipeline = StableDiffusionPipeline(
        parts[1], parts[2], tokenizer, parts[0], scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


LATENT_UNET: dict[str, Any] = {
    "sample_size": 8, "block_out_channels": [32, 64], "layers_per_block": 1, "attention_head_dim": 16,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def latent_pipeline(scheduler: Any, kl: bool = False, scale: float = 1.0, **unet: Any) -> Any:
    """An LDMPipeline, of latents before quantization or of those of a first stage without a codebook."""
    from diffusers import AutoencoderKL, LDMPipeline, UNet2DModel, VQModel

    torch.manual_seed(0)
    channels = 4 if kl else 3
    of_stage = {**VAE, "latent_channels": channels, "scaling_factor": scale}
    stage = AutoencoderKL(**of_stage) if kl else VQModel(**of_stage, num_vq_embeddings=64)
    network = UNet2DModel(**LATENT_UNET | {"in_channels": channels, "out_channels": channels} | unet)
    for parameter in stage.parameters():
        parameter.data.normal_(std=0.12)
    if not kl:
        # Vectors as far apart as latents are, which therefore change with every step.
        stage.quantize.embedding.weight.data.normal_(std=1 / scale)
    pipeline = LDMPipeline(stage.eval(), network.eval(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
