"""`difflab retrieval`: the captions of images and the images of captions, found by a stored CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import difflab as difflab_api
from clip_runs import QUIET, records
from difflab.config.data import DataConfig
from difflab.data.build import build_dataset
from difflab.data.shapes import ShapesSource
from difflab.data.writing import write_dataset
from difflab.pipelines.embedding import EmbeddingPipeline
from difflab.pipelines.stored import load_stored
from own_images import write_scans
from tiny_runs import difflab, done, mistake
from warm_python import spawn_warm_difflab

KEYS = [f"{what}-retrieval-r{k}@val-12" for what in ("text", "image") for k in (1, 5, 10)]


def last_line(*arguments: object) -> str:
    """What a command says that has begun to read, and then ends with a mistake of the user."""
    ended = difflab(*arguments)
    assert ended.status == 2, ended
    assert "Traceback" not in ended.err
    return ended.last_error


def values(folder: str | Path) -> dict[str, float]:
    return {name: found.value for name, found in records(folder).items()}


def test_the_share_of_images_whose_caption_is_among_the_nearest(small_clip: Path, tiny_shapes: Path) -> None:
    ended = done("retrieval", f"run={small_clip}", "n=12", "batch_size=5", "out=found", *QUIET)
    found = values("found")
    assert list(found) == KEYS
    pipeline = EmbeddingPipeline(load_stored(small_clip, "auto")[0])
    data = DataConfig(path=str(tiny_shapes), image_size=16, batch_size=1, fields=["caption"])
    samples = [build_dataset(data, split="val")[i] for i in range(12)]
    captions = [sample["caption"] for sample in samples]
    similar = pipeline.images(torch.stack([sample["image"] for sample in samples])) @ pipeline.texts(captions).T
    for what, scores in (("text", similar), ("image", similar.T)):
        order = scores.argsort(dim=1, descending=True, stable=True)
        for k in (1, 5, 10):
            hits = [any(captions[j] == captions[i] for j in order[i, :k].tolist()) for i in range(12)]
            assert found[f"{what}-retrieval-r{k}@val-12"] == pytest.approx(sum(hits) / 12)
    assert "12 images, 12 captions" in ended.out
    assert "guessing gives a text R@1 of " in ended.out


def test_every_line_is_a_caption_of_its_image(small_clip: Path) -> None:
    class Several(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            sample = super().sample(index)
            return {**sample, "caption": f"one {index}\nboth\nthree {index}"}

    write_dataset({"val": Several(resolution=16, n=4, seed=1, split="val")}, Path("lines"), shard_size=40)
    arguments = ("retrieval", f"run={small_clip}", "data.path=lines", "n=4", *QUIET)
    ended = done(*arguments, "data.captions=lines", "out=lines-found")
    assert "4 images, 12 captions, 9 of them distinct; a caption that equals a right one is right" in ended.out
    first = records("lines-found")["text-retrieval-r1@val-4"]
    assert (first.details["captions"], first.details["distinct_captions"]) == (12, 9)
    assert first.protocol.parameters["captions"] == "lines"
    # Guessed: of 12 captions 2 are the image's alone, 4 are everyone's; 8 captions have one image, 4 have four.
    assert f"text R@1 of {6 / 12:.3g} and an image R@1 of {(8 * 1 + 4 * 4) / 48:.3g}" in ended.out
    ended = done(*arguments, "data.captions=first_line", "out=first-found")
    assert "4 images, 4 captions, all distinct" in ended.out
    message = last_line(*arguments, "data.captions=lines", "distinct=true", "out=none")
    assert "n=4, but the split val has 1 images without a caption that an earlier one has: give n=1" in message


def test_distinct_takes_the_first_images_whose_captions_differ(small_clip: Path) -> None:
    class Repeating(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {**super().sample(index), "caption": f"number {index // 3}"}

    write_dataset({"val": Repeating(resolution=16, n=12, seed=1, split="val")}, Path("repeated"), shard_size=40)
    arguments = ("retrieval", f"run={small_clip}", "data.path=repeated", "n=3", *QUIET)
    ended = done(*arguments, "distinct=true", "out=distinct")
    assert "3 images, 3 captions, all distinct" in ended.out
    found = records("distinct")["text-retrieval-r1@val-3"]
    assert found.protocol.parameters["images"] == "first with distinct captions"
    ended = done("retrieval", f"run={small_clip}", "data.path=repeated", "n=12", "out=all", *QUIET)
    assert "12 images, 12 captions, 4 of them distinct" in ended.out
    message = last_line("retrieval", f"run={small_clip}", "data.path=repeated", "n=5", "distinct=true", *QUIET)
    assert "give n=4 or less, or distinct=false" in message


def test_an_empty_caption_is_refused(small_clip: Path) -> None:
    class Silent(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {**super().sample(index), "caption": "" if index == 2 else f"number {index}"}

    write_dataset({"val": Silent(resolution=16, n=4, seed=1, split="val")}, Path("silent"), shard_size=40)
    message = last_line("retrieval", f"run={small_clip}", "data.path=silent", "n=4", *QUIET)
    assert "1 of 4 images have an empty caption, such as number 2 of the split val" in message


def test_captions_are_checked_before_any_image_is_embedded(small_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {**super().sample(index), "caption": "many words " * 40 if index == 11 else f"number {index}"}

    write_dataset({"val": Long(resolution=16, n=12, seed=1, split="val")}, Path("long"), shard_size=40)
    arguments = ("retrieval", f"run={small_clip}", "data.path=long", "n=12", *QUIET)
    done(*arguments, "too_long=truncate", "out=truncated")
    assert len(values("truncated")) == 6

    def never(*_: object) -> None:
        raise AssertionError("an image was embedded")

    monkeypatch.setattr(EmbeddingPipeline, "images", never)
    message = last_line(*arguments, "out=none")
    assert "tokens, more than context_length=48: shorten it, or set too_long=truncate" in message
    assert not Path("none").exists()
    message = last_line(*arguments, "too_long=truncate", "negatives=[relation]", "out=none")
    assert "negatives=relation: no caption of these images has one" in message


def test_false_captions_are_checked_before_any_image_is_embedded(
    small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {**super().sample(index), "caption": f"number {index}\n{'many words ' * 40}"}

    def never(*_: object) -> None:
        raise AssertionError("an image was embedded")

    write_dataset({"val": Told(resolution=16, n=3)}, Path("told"))
    monkeypatch.setattr(EmbeddingPipeline, "images", never)
    asked = ("data.path=told", "data.captions=first_line", "negatives=[lines]")
    message = last_line("retrieval", f"run={small_clip}", "n=3", *asked, "out=none", *QUIET)
    assert "tokens, more than context_length=48: shorten it, or set too_long=truncate" in message


def test_from_python_it_is_what_the_command_finds(small_clip: Path) -> None:
    done("retrieval", f"run={small_clip}", "n=4", "distinct=true", "out=found", *QUIET)
    rows = difflab_api.load(small_clip, accelerator="cpu").retrieval(n=4, distinct=True)
    assert {row.name: row.value for row in rows} == values("found")


def test_the_template_changes_what_is_embedded(small_clip: Path) -> None:
    for name, template in (("plain", "{}"), ("photo", "a photo of {}")):
        done("retrieval", f"run={small_clip}", "n=12", f"template='{template}'", f"out={name}", *QUIET)
    plain, photo = (records(name)["text-retrieval-r1@val-12"] for name in ("plain", "photo"))
    assert plain.protocol.hash != photo.protocol.hash


def test_data_without_captions_is_refused(small_clip: Path) -> None:
    write_scans(Path("pictures"), each=8, classes=["bar", "pole"])
    done("data", "make", "source=folder", "path=pictures", "out=bare", "resolution=16", "val=4")
    message = mistake("retrieval", f"run={small_clip}", "data.path=bare", "n=2", *QUIET)
    assert "has no caption (.txt files) in split 'val', which `difflab retrieval` needs" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["template=photo"], "template='photo' needs exactly one {}, where the caption goes"),
        (["template='{} {}'"], "needs exactly one {}"),
        (["n=13"], "has 12 images: give n=12 or less"),
        (["guidance.scale=2"], "images are compared with captions by the model alone, without guidance"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(small_clip: Path, arguments: list[str], message: str) -> None:
    assert message in mistake("retrieval", f"run={small_clip}", "n=2", *arguments, "out=found", *QUIET)
    assert not Path("found").exists()


@pytest.mark.slow
def test_two_processes_find_what_one_does(small_clip: Path, tmp_path: Path) -> None:
    arguments = ["retrieval", f"run={small_clip}", "n=11", "batch_size=2", *QUIET]
    done(*arguments, "out=on-1")
    ended = spawn_warm_difflab([*arguments, "devices=2", "out=on-2"], tmp_path)
    assert ended.status == 0, ended.err
    assert values(tmp_path / "on-2") == values(tmp_path / "on-1")


def test_the_choice_between_a_caption_and_false_ones(small_clip: Path) -> None:
    captions = [
        "a small red circle above a blue square\na small red circle below a blue square\na cat",
        "a green ring",
        "a green ring left of a red ring",
    ]

    class Told(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {**super().sample(index), "caption": captions[index]}

    write_dataset({"val": Told(resolution=16, n=3)}, Path("told"))
    asked = ("retrieval", f"run={small_clip}", "data.path=told", "data.captions=first_line", "n=3", *QUIET)
    ended = done(*asked, "negatives=[relation,binding,lines]", "out=found")
    pipeline = EmbeddingPipeline(load_stored(small_clip, "auto")[0])
    data = DataConfig(path="told", image_size=16, batch_size=1)
    images = torch.stack([sample["image"] for sample in map(build_dataset(data, split="val").sample, range(3))])
    embedded = pipeline.images(images)

    def chosen(row: int, *texts: str) -> float:
        own, *others = (embedded[row] @ pipeline.texts(texts).T).tolist()
        return float(all(own > other for other in others))

    first, above = captions[0].split("\n"), "a small {} circle above a {} square"
    relation = [chosen(0, *first[:2]), chosen(2, captions[2], "a green ring right of a red ring")]
    found = values("found")
    assert found["caption-choice-relation@val-3"] == sum(relation) / 2
    assert found["caption-choice-binding@val-3"] == chosen(0, first[0], above.format("blue", "red"))
    assert found["caption-choice-lines@val-3"] == chosen(0, *first)
    assert "caption-choice-relation: on 2 of the images; guessing gives 0.5" in ended.out
    assert "caption-choice-lines: on 1 of the images; guessing gives 0.333" in ended.out
    assert records("found")["caption-choice-lines@val-3"].warnings == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["negatives=[lines]"], "set data.captions=first_line"),
        (["negatives=[lines]", "data.captions=first_line"], "negatives=lines: no caption of these images has one"),
        (["negatives=[colour]"], "negatives"),
    ],
)
def test_false_captions_that_are_none_are_refused(small_clip: Path, asked: list[str], said: str) -> None:
    assert said in last_line("retrieval", f"run={small_clip}", "n=4", *asked, *QUIET)
