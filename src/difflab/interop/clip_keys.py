"""The keys of CLIP in OpenAI's files, which are also open_clip's, and in those of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from difflab.interop.keymap import Entry, Fused, Same, Transform, both
from difflab.networks.towers.clip import CLIP
from difflab.networks.towers.resnet import Bottleneck, ResNet
from difflab.networks.towers.text import TextTransformer
from difflab.networks.towers.transformer import Transformer
from difflab.networks.towers.vit import ViT


@dataclass(frozen=True)
class Transposed:
    """A matrix stored the other way round."""

    def to_ours(self, official: Sequence[Tensor]) -> Tensor:
        return official[0].T if official[0].ndim == 2 else official[0]

    def to_official(self, ours: Tensor) -> list[Tensor]:
        return [ours.T]


def is_clip_scalar(key: str) -> bool:
    """Whether a key is that of a tensor without dimensions in a CLIP, in our layout or an official one."""
    return key in ("logit_scale", "logit_bias") or key.endswith(".num_batches_tracked")


def openai_entries(network: CLIP) -> list[Entry]:
    """The entries of OpenAI's and open_clip's files, in the order of their state dicts."""
    text = network.text
    assert isinstance(text, TextTransformer), "the text tower of OpenAI's CLIP is a transformer"
    image = network.image
    entries = [
        Entry(("positional_embedding",), "text.position"),
        Entry(("text_projection",), "text.projection"),
        Entry(("logit_scale",), "logit_scale"),
    ]
    if network.logit_bias is not None:
        entries.append(Entry(("logit_bias",), "logit_bias"))
    entries += _openai_vit(image) if isinstance(image, ViT) else _openai_resnet(image)
    entries += _openai_blocks(text.transformer, "transformer.resblocks", "text.transformer.blocks")
    return [*entries, Entry(("token_embedding.weight",), "text.tokens.weight"), *both("ln_final", "text.norm_out")]


def _openai_vit(image: ViT) -> list[Entry]:
    return [
        Entry(("visual.class_embedding",), "image.class_token"),
        Entry(("visual.positional_embedding",), "image.position"),
        Entry(("visual.proj",), "image.projection"),
        Entry(("visual.conv1.weight",), "image.patch.weight"),
        *both("visual.ln_pre", "image.norm_in"),
        *_openai_blocks(image.transformer, "visual.transformer.resblocks", "image.transformer.blocks"),
        *both("visual.ln_post", "image.norm_out"),
    ]


def _openai_blocks(transformer: Transformer, official: str, ours: str) -> list[Entry]:
    entries = []
    for number in range(len(transformer.blocks)):
        theirs, own = f"{official}.{number}", f"{ours}.{number}"
        entries += [
            *(Entry((f"{theirs}.attn.in_proj_{leaf}",), f"{own}.qkv.{leaf}") for leaf in ("weight", "bias")),
            *both(f"{theirs}.attn.out_proj", f"{own}.out"),
            *both(f"{theirs}.ln_1", f"{own}.norm1"),
            *both(f"{theirs}.mlp.c_fc", f"{own}.mlp_in"),
            *both(f"{theirs}.mlp.c_proj", f"{own}.mlp_out"),
            *both(f"{theirs}.ln_2", f"{own}.norm2"),
        ]
    return entries


def _norm(official: str, ours: str) -> list[Entry]:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return [
        *both(official, ours),
        *(Entry((f"{official}.{name}",), f"{ours}.{name}") for name in statistics),
    ]


def _openai_resnet(image: object) -> list[Entry]:
    assert isinstance(image, ResNet), "the image tower of OpenAI's CLIP is a ViT or a ResNet"
    entries = []
    for number in range(len(image.stem)):
        entries.append(Entry((f"visual.conv{number + 1}.weight",), f"image.stem.{number}.conv.weight"))
        entries += _norm(f"visual.bn{number + 1}", f"image.stem.{number}.norm")
    for stage, blocks in enumerate(image.stages):
        for number, block in enumerate(blocks.children()):
            assert isinstance(block, Bottleneck)
            entries += _bottleneck(block, f"visual.layer{stage + 1}.{number}", f"image.stages.{stage}.{number}")
    pool = [("k_proj", "key"), ("q_proj", "query"), ("v_proj", "value"), ("c_proj", "projection")]
    entries.append(Entry(("visual.attnpool.positional_embedding",), "image.pool.position"))
    for theirs, ours in pool:
        entries += both(f"visual.attnpool.{theirs}", f"image.pool.{ours}")
    return entries


def _bottleneck(block: Bottleneck, official: str, ours: str) -> list[Entry]:
    entries = []
    for number in (1, 2, 3):
        entries.append(Entry((f"{official}.conv{number}.weight",), f"{ours}.conv{number}.weight"))
        entries += _norm(f"{official}.bn{number}", f"{ours}.norm{number}")
    if block.shortcut is not None:
        entries.append(Entry((f"{official}.downsample.0.weight",), f"{ours}.shortcut.conv.weight"))
        entries += _norm(f"{official}.downsample.1", f"{ours}.shortcut.norm")
    return entries


def transformers_entries(network: CLIP) -> list[Entry]:
    """The entries of transformers' `CLIPModel`. Raises ValueError for a ResNet or a bias, which it has not."""
    text, image = network.text, network.image
    assert isinstance(text, TextTransformer), "the text tower of transformers' CLIP is a transformer"
    if not isinstance(image, ViT):
        raise ValueError("transformers has no CLIP with a ResNet")
    if network.logit_bias is not None:
        raise ValueError("transformers' CLIPModel has no bias of the logits")
    named: Callable[[str, str, Transform], Entry] = lambda theirs, ours, how: Entry((theirs,), ours, how)  # noqa: E731
    same, turned = Same(), Transposed()
    embeddings = "vision_model.embeddings"
    return [
        named("logit_scale", "logit_scale", same),
        named("text_model.embeddings.token_embedding.weight", "text.tokens.weight", same),
        named("text_model.embeddings.position_embedding.weight", "text.position", same),
        *_transformers_layers(text.transformer, "text_model.encoder.layers", "text.transformer.blocks"),
        *both("text_model.final_layer_norm", "text.norm_out"),
        named(f"{embeddings}.class_embedding", "image.class_token", same),
        named(f"{embeddings}.patch_embedding.weight", "image.patch.weight", same),
        named(f"{embeddings}.position_embedding.weight", "image.position", same),
        *both("vision_model.pre_layrnorm", "image.norm_in"),
        *_transformers_layers(image.transformer, "vision_model.encoder.layers", "image.transformer.blocks"),
        *both("vision_model.post_layernorm", "image.norm_out"),
        named("visual_projection.weight", "image.projection", turned),
        named("text_projection.weight", "text.projection", turned),
    ]


def _transformers_layers(transformer: Transformer, official: str, ours: str) -> list[Entry]:
    entries = []
    for number in range(len(transformer.blocks)):
        theirs, own = f"{official}.{number}", f"{ours}.{number}"
        parts = [f"{theirs}.self_attn.{part}_proj" for part in ("q", "k", "v")]
        entries += [
            *both(parts, f"{own}.qkv", Fused(3)),
            *both(f"{theirs}.self_attn.out_proj", f"{own}.out"),
            *both(f"{theirs}.layer_norm1", f"{own}.norm1"),
            *both(f"{theirs}.mlp.fc1", f"{own}.mlp_in"),
            *both(f"{theirs}.mlp.fc2", f"{own}.mlp_out"),
            *both(f"{theirs}.layer_norm2", f"{own}.norm2"),
        ]
    return entries
