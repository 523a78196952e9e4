"""CLIPScore in its three conventions: by open_clip, by torchmetrics with transformers' CLIP, and in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.multimodal import clip_score as their_score
from transformers import CLIPImageProcessor, CLIPModel

from difflab.errors import UserError
from difflab.interop.layout import Target
from difflab.interop.native import save_export
from difflab.interop.registry import export_model, import_weights, model_of_weights
from difflab.metrics.config import CLIPScoreConfig, Convention
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.protocol import Result
from difflab.pipelines.clip_score import harmonic_mean, score
from difflab.tracking.grid import to_pil
from interop.clip_files import official

CAPTIONS = ["a red circle", "two blue squares", "a green ring on grey", ""]
REFERENCES = [["one circle in red", "a disc"], ["squares, both of them blue"], ["a ring", "something green", "grey"]]
PREFIX = "A photo depicts "


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, torch.nn.Module, Path]:
    """An export of drawn weights, open_clip's network with them, and transformers' folder of them."""
    root = tmp_path_factory.mktemp("judge")
    network = official("quick_gelu")
    torch.save(network.state_dict(), root / "official.pt")
    config = model_of_weights(root / "official.pt", activation="quick_gelu").config
    state = import_weights(root / "official.pt", Target.of(config)).state
    save_export(root / "ours", state, config.plain())
    export_model(root / "transformers", state, config, "transformers_clip")
    return str(root / "ours"), network, root / "transformers"


def images(n: int, height: int = 48, width: int = 60) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)


def scored(run: str, shown: Tensor, captions: list[str], **options: Any) -> dict[str, Result]:
    references = options.pop("references", None)
    evaluator = Evaluator({"clip_score": CLIPScoreConfig(clip=run, **options)}, n=len(shown))
    for rows in (list(range(1, len(shown))), [0]):
        evaluator.update(
            shown[rows],
            torch.tensor(rows),
            caption=[captions[row] for row in rows],
            references=None if references is None else [references[row] for row in rows],
        )
    return {one.metric: one for one in evaluator.compute()}


def embedded(network: torch.nn.Module, shown: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
    """By open_clip's network, preprocessing and tokenizer."""
    transform = open_clip.image_transform(
        32, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    pixels = torch.stack([transform(to_pil(image)) for image in shown])
    ids = open_clip.SimpleTokenizer(context_length=16)(texts)
    with torch.no_grad():
        return network.encode_image(pixels, normalize=True), network.encode_text(ids, normalize=True)


@pytest.mark.parametrize("size", [(48, 60), (32, 32), (20, 20)])
def test_every_convention_is_what_open_clip_gives(judge: tuple[str, torch.nn.Module, Path], size: Any) -> None:
    run, network, _ = judge
    shown, captions = images(3, *size), CAPTIONS[:3]
    found = scored(run, shown, captions, references=REFERENCES)
    assert list(found) == ["clip-score-glide", "clip-score-imagen", "clip-score-clipscore", "clip-score-refclipscore"]
    image, text = embedded(network, shown, captions)
    cosine = (image * text).sum(dim=1).double()
    assert found["clip-score-glide"].value == pytest.approx(100 * float(cosine.mean()), rel=1e-4)
    assert found["clip-score-imagen"].value == pytest.approx(float(cosine.mean()), rel=1e-4)
    assert found["clip-score-imagen"].spread == pytest.approx(float(cosine.std()) / math.sqrt(3), rel=1e-3)
    _, prefixed = embedded(network, shown, [PREFIX + caption for caption in captions])
    of_images = 2.5 * np.clip((image * prefixed).sum(dim=1).double().numpy(), 0, None)
    assert found["clip-score-clipscore"].value == pytest.approx(of_images.mean(), rel=1e-4)
    nearest = []
    for row, others in enumerate(REFERENCES):
        _, theirs = embedded(network, shown, [PREFIX + other for other in others])
        nearest.append(max(0.0, float((theirs @ prefixed[row]).max())))
    both = [2 * a * b / (a + b) if a + b else 0.0 for a, b in zip(of_images, nearest, strict=True)]
    assert found["clip-score-refclipscore"].value == pytest.approx(np.mean(both), rel=1e-4)


class Embedding(torch.nn.Module):
    """transformers' CLIP as torchmetrics calls it: transformers 5 gives more than the embeddings."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.inner = CLIPModel.from_pretrained(folder).eval()
        self.config = self.inner.config

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return self.inner.get_image_features(pixel_values=pixel_values).pooler_output

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.inner.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output


def test_glide_s_is_torchmetrics_of_transformers(judge: tuple[str, torch.nn.Module, Path]) -> None:
    run, _, folder = judge
    tokenize = open_clip.SimpleTokenizer(context_length=16)
    pixels = CLIPImageProcessor.from_pretrained(folder)

    def processor(text: list[str] | None = None, images: list[Tensor] | None = None, **_: object) -> dict[str, Tensor]:
        if text is not None:
            ids = tokenize(text)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return {"pixel_values": pixels(images, return_tensors="pt")["pixel_values"]}

    shown, captions = images(3), CAPTIONS[:3]
    expected = their_score(list(shown), captions, lambda: (Embedding(folder), processor))
    # Its own is the mean of 100 cos, and not below 0.
    found = scored(run, shown, captions, conventions=["glide"])["clip-score-glide"].value
    assert max(found, 0.0) == pytest.approx(float(expected.detach()), abs=2e-2)
    assert found != pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("convention", "expected"), [("glide", [100, 0, -50]), ("imagen", [1, 0, -0.5]), ("clipscore", [2.5, 0, 0])]
)
def test_scores_in_closed_form(convention: Convention, expected: list[float]) -> None:
    assert score(convention, torch.tensor([1.0, 0.0, -0.5])).tolist() == expected


def test_the_harmonic_mean_of_nothing_is_nothing() -> None:
    found = harmonic_mean(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([3.0, 1.0, 0.0]))
    assert found.tolist() == [1.5, 0.0, 0.0]


def test_the_protocol_has_the_judge_and_what_it_is_shown(judge: tuple[str, torch.nn.Module, Path]) -> None:
    run, _, _ = judge
    found = scored(run, images(3), CAPTIONS[:3])
    assert "clip-score-refclipscore" not in found, "there are no references"
    glide, hessel = (found[f"clip-score-{name}"].protocol for name in ("glide", "clipscore"))
    assert glide.extractor is not None
    assert (glide.extractor.name, glide.extractor.size, glide.extractor.resize) == ("clip", 32, "resize_short")
    assert len(glide.extractor.weights_sha256) == 64
    assert (glide.parameters["prefix"], hessel.parameters["prefix"]) == ("", PREFIX)
    preprocessing: Any = glide.parameters["preprocessing"]
    assert preprocessing["network.activation"] == "quick_gelu"
    assert {"network.mean", "network.std", "tokenizer"} <= preprocessing.keys()
    clip: Any = glide.parameters["clip"]
    assert clip["run"] == run
    assert not any("parameters.clip" in key for key in glide.measured()), "a judge is known by its weights"
    others = scored(run, images(3), CAPTIONS[1:])
    assert others["clip-score-glide"].protocol.differences(glide) == ["parameters.captions"]


def test_captions_that_are_too_long_or_empty_are_counted(judge: tuple[str, torch.nn.Module, Path]) -> None:
    run, network, _ = judge
    long = "a red circle " * 9
    shown = images(2)
    found = scored(run, shown, [long, ""], conventions=["imagen"])["clip-score-imagen"]
    image, text = embedded(network, shown, [long, ""])
    assert found.value == pytest.approx(float((image * text).sum(dim=1).mean()), rel=1e-4)
    assert found.warnings == [
        "1 of 2 captions have more than 16 tokens, of which the CLIP sees the first",
        "1 of 2 captions are empty, so that their scores mean nothing",
    ]


def test_references_of_some_images_alone_are_no_measure(judge: tuple[str, torch.nn.Module, Path]) -> None:
    found = scored(judge[0], images(3), CAPTIONS[:3], references=[*REFERENCES[:2], []])
    assert list(found) == ["clip-score-glide", "clip-score-imagen", "clip-score-clipscore"]


def test_samples_of_unknown_captions_have_no_score(judge: tuple[str, torch.nn.Module, Path]) -> None:
    evaluator = Evaluator({"clip_score": CLIPScoreConfig(clip=judge[0])}, n=2)
    evaluator.update(images(2), torch.arange(2))
    with pytest.raises(UserError, match=r"metrics\.clip_score: the caption of each sample is not known"):
        evaluator.compute()


def test_grey_samples_are_seen_in_grey(judge: tuple[str, torch.nn.Module, Path]) -> None:
    grey = images(2)[:, :1]
    assert scored(judge[0], grey, CAPTIONS[:2])["clip-score-glide"].value == pytest.approx(
        scored(judge[0], grey.expand(-1, 3, -1, -1), CAPTIONS[:2])["clip-score-glide"].value
    )
