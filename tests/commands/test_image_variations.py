"""A model that draws variations of images by their CLIP embeddings, through every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_runs import records
from difflab.interop.native import load_export
from drawn_clip import DIM, export_clip
from run_files import checkpoint, losses
from tiny_runs import ON_CPU, TRAINING, done, mistake

pytestmark = pytest.mark.slow

OPTIONS = (
    "conditioning=clip_image",
    "conditioning.clip_image.weights.path=clip",
    "conditioning.clip_image.width=16",
    "conditioning.clip_image.drop_rate=0.3",
    "network.context_channels=16",
    "guidance=classifier_free",
    "guidance.scale=2",
    "trainer.log_every_steps=1",
)
# After three steps it takes a strong guidance to see what the images do.
FAST = ("n=2", "sampler.steps=2", "guidance.scale=300", "grid=false", *ON_CPU)
RUNS = Path("ddpm/shapes32")
OWN = {f"conditioners.clip_image.{name}.{kind}" for name in ("norm", "projection") for kind in ("weight", "bias")}


def train(name: str, data: Path | str, *overrides: str) -> tuple[str, ...]:
    return ("train", *TRAINING, *OPTIONS, f"data.path={data}", "output_root=.", f"name={name}", *overrides)


def drawn(out: str) -> np.ndarray:
    return np.load(Path(out) / "samples.npz")["arr_0"]


def test_it_is_trained_drawn_with_images_and_embeddings_and_exported(tiny_shapes: Path) -> None:
    export_clip(Path("clip"))
    done(*train("plain", tiny_shapes))
    run = RUNS / "plain"
    written = {name for name in checkpoint(run)["state_dict"] if name.startswith("conditioners.")}
    assert written == OWN, "the CLIP is a frozen part"

    done("sample", f"run={run}", *FAST, "split=val", "out=split")
    done("weights", "export", run, "--out", "exported")
    assert {n for n in load_export(Path("exported"))[0] if n.startswith("conditioners.")} == OWN
    # What the split shows, given as a folder of pictures.
    done("sample", f"run={run}", "n=2", "sampler.steps=1", "npz=false", "grid=false", *ON_CPU, "out=pictures")
    done("sample", "run=exported", *FAST, "images=pictures", "out=given")
    done("sample", f"run={run}", *FAST, "images=pictures", "out=again")
    assert np.array_equal(drawn("given"), drawn("again"))
    assert not np.array_equal(drawn("given"), drawn("split"))

    np.save("embeddings.npy", np.random.default_rng(0).normal(size=(2, DIM)).astype(np.float32))
    done("sample", f"run={run}", *FAST, "embeddings=embeddings.npy", "out=embedded")
    assert not np.array_equal(drawn("embedded"), drawn("given"))
    both = ("images=pictures", "embeddings=embeddings.npy")
    line = mistake("sample", f"run={run}", *FAST, *both, "out=no")
    assert "images and embeddings both say what embedding is: leave one of the two out" in line
    done("sample", f"run={run}", *FAST, *both, "start=0.5", "out=begun")
    np.save("embeddings.npy", np.zeros((2, 3), np.float32))
    line = mistake("sample", f"run={run}", *FAST, "embeddings=embeddings.npy", "out=no")
    assert f"embedding has 3 numbers, but images of this model's CLIP have {DIM}" in line


def test_samples_are_compared_with_what_they_are_variations_of(tiny_shapes: Path) -> None:
    export_clip(Path("clip"))
    export_clip(Path("judge"), image_size=32, seed=1)
    done(*train("plain", tiny_shapes))
    run, of_pairs = RUNS / "plain", ("metrics=variations", "metrics.fd=null", "metrics.kid=null", "clip=judge")
    judged = (*of_pairs, "split=val", f"data.path={tiny_shapes}", "logger=none", "accelerator=cpu")
    done("evaluate", f"run={run}", "n=4", "sampler.steps=2", *judged, "precision=32-true", "out=found")
    found = records("found")
    assert list(found) == ["clip-image-similarity@4", "oracle-same-objects@4", "oracle-same-images@4"]
    similarity = found["clip-image-similarity@4"]
    assert -1 <= similarity.value < 0.999
    assert similarity.protocol.parameters["clip"]["run"].endswith("judge")

    done("sample", f"run={run}", "n=4", "sampler.steps=2", "split=val", "out=drawn", *ON_CPU)
    done("evaluate", "samples=drawn", "n=4", *judged, "out=again")
    assert records("again")["clip-image-similarity@4"].value == pytest.approx(similarity.value, abs=1e-6)
    np.save("embeddings.npy", np.zeros((4, DIM), np.float32))
    line = mistake("evaluate", f"run={run}", "n=4", *judged, "embeddings=embeddings.npy", "out=no")
    assert "are drawn from are not known: give images=FOLDER" in line


def test_embeddings_of_the_data_are_read_in_place_of_the_clip(tiny_shapes: Path) -> None:
    # A CLIP for larger images than those of the data.
    export_clip(Path("clip"), image_size=32)
    images = ("fields=[image_embedding]", "crop=resize_short", "dtype=float32", "accelerator=cpu")
    done("data", "encode", f"path={tiny_shapes}", "out=encoded", "clip=clip", *images)
    done(*train("plain", tiny_shapes))
    done(*train("encoded", "encoded"))
    assert "encoded has image_embedding, which are read in place of running" in (RUNS / "encoded/log.txt").read_text()
    assert losses(RUNS / "encoded") == pytest.approx(losses(RUNS / "plain"), rel=1e-2)
    done(*train("anew", "encoded", "conditioning.clip_image.encoded=never"))
    assert losses(RUNS / "anew") == losses(RUNS / "plain")
    flipped = mistake(*train("flipped", "encoded", "data.flip=true"))
    assert "image_embedding was computed of images as they are, but data.flip=true mirrors half of them" in flipped
    export_clip(Path("clip"), image_size=32, seed=1)
    other = mistake(*train("other", "encoded"))
    assert "image_embedding was computed by clip " in other


def test_mistakes_end_in_a_line(tiny_shapes: Path) -> None:
    nothing = mistake(*train("a", tiny_shapes))
    assert "clip does not exist" in nothing
    export_clip(Path("clip"))
    wide = mistake(*train("a", tiny_shapes, "conditioning.clip_image.width=null"))
    assert "network.context_channels" in wide
