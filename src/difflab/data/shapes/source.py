"""The shapes data as a source: numbered samples of a seed and a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from difflab.config.combinations import Combination, read_combination
from difflab.data.shapes import captions
from difflab.data.shapes.holdout import Holdout
from difflab.data.shapes.layout import draw_scene
from difflab.data.shapes.render import class_map, render
from difflab.data.shapes.scene import COLOURS, SHAPES, Scene
from difflab.data.sources.shapes.config import ClassKind, Shape, ShapesSourceConfig, Size
from difflab.seeding import stream_seed

SPLITS = ("train", "val", "test", "holdout")


def class_names(classes: ClassKind = "shape") -> list[str]:
    """The class names in the order of the labels."""
    if classes == "shape":
        return list(SHAPES)
    if classes == "colour":
        return list(COLOURS)
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def class_label(scene: Scene, classes: ClassKind = "shape") -> int:
    """The label of the scene's main object; its name is `class_names(classes)[label]`."""
    shape, colour = SHAPES.index(scene.main.shape), tuple(COLOURS).index(scene.main.colour)
    return {"shape": shape, "colour": colour, "shape_colour": colour * len(SHAPES) + shape}[classes]


class ShapesSource:
    """`n` samples, each a function of (seed, split, index) alone, so that sample i is the same whatever n is.

    Splits use different random streams. The scene of an index does not depend on the resolution as long as `objects`
    and the sizes in use are the same, so two resolutions from 32 px up give aligned pairs.

    Args: resolution in pixels, 16..1024; objects = (fewest, most), sizes and shapes, None for the defaults;
    segmentation: whether samples have the class of each pixel (`class_map`).
    paraphrases: a caption has every true description, one per line, instead of the exact one alone; holdout:
    combinations (`difflab.config.combinations`) of which the splits train, val and test have none, and each sample of
    the split holdout has one; a scene without any is the same as without holdout.
    Raises: pydantic's ValidationError, a ValueError, if the options do not fit together; see `ShapesSourceConfig`.
    """

    def __init__(
        self,
        *,
        resolution: int,
        n: int,
        seed: int = 0,
        split: str = "train",
        objects: tuple[int, int] | None = None,
        sizes: Sequence[Size] | None = None,
        shapes: Sequence[Shape] | None = None,
        classes: ClassKind = "shape",
        paraphrases: bool = False,
        segmentation: bool = False,
        holdout: Sequence[str] = (),
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
        wanted = None if objects is None else list(objects)
        config = ShapesSourceConfig(
            resolution=resolution,
            n=n,
            seed=seed,
            objects=wanted,
            sizes=None if sizes is None else list(sizes),
            shapes=None if shapes is None else list(shapes),
            classes=classes,
            paraphrases=paraphrases,
            segmentation=segmentation,
            holdout=list(holdout),
        )
        self.resolution = resolution
        self.seed = seed
        self.split = split
        self.classes: ClassKind = classes
        self.class_names = class_names(classes)
        self.objects = config.object_range()
        self.sizes = config.object_sizes()
        self.shapes = config.object_shapes()
        self.paraphrases = paraphrases
        self.segmentation = segmentation
        self.holdout = tuple(config.holdout)
        self._held_out: Holdout | None = None
        if config.holdout:
            combinations = [read_combination(text) for text in config.holdout]
            self._held_out = Holdout(combinations, objects=self.objects, sizes=self.sizes, shapes=self.shapes)
        elif split == "holdout":
            raise ValueError("split='holdout' has the combinations of holdout: name some")
        self._n = n

    @classmethod
    def from_config(cls, config: ShapesSourceConfig, split: str) -> ShapesSource:
        """The source of one split of a configuration."""
        return cls(
            resolution=config.resolution,
            n=config.count(split),
            seed=config.seed,
            split=split,
            objects=config.object_range(),
            sizes=config.object_sizes(),
            shapes=config.object_shapes(),
            classes=config.classes,
            paraphrases=config.paraphrases,
            segmentation=config.segmentation,
            holdout=config.holdout,
        )

    def __len__(self) -> int:
        return self._n

    def fingerprint(self) -> str:
        """Everything that samples are a function of; see `difflab.data.sources.base.Fingerprinted`."""
        how = (self.resolution, self.seed, self.split, self.objects, self.sizes, self.shapes, self.classes)
        # What is left at its default is not named: sets made before there were these keep their fingerprint.
        held_out = (self.holdout,) if self.holdout else ()
        told = ("paraphrases",) if self.paraphrases else ()
        mapped = ("segmentation",) if self.segmentation else ()
        return repr(how + held_out + told + mapped)

    def scene(self, index: int) -> Scene:
        """The scene behind sample `index`, 0 <= index < n; raises IndexError outside."""
        return self._scene(index)[0]

    def sample(self, index: int) -> dict[str, Any]:
        """image uint8 [H, W, 3], label int, caption str and json (captions, boxes with phrases, scene, licence);
        with `segmentation` also that, uint8 [H, W], the class of each pixel."""
        scene, combination = self._scene(index)
        texts = [captions.caption(scene), *captions.paraphrases(scene)]
        held_out = {} if combination is None else {"holdout": str(combination)}
        mapped = {"segmentation": class_map(scene, self.resolution)} if self.segmentation else {}
        return {
            "image": render(scene, self.resolution),
            **mapped,
            "label": class_label(scene, self.classes),
            "caption": "\n".join(texts) if self.paraphrases else texts[0],
            "json": {
                "captions": texts,
                "boxes": [list(obj.box) for obj in scene.objects],
                "phrases": [obj.phrase for obj in scene.objects],
                **scene.as_dict(),
                **held_out,
                "source": "difflab shapes",
                "licence": "CC0-1.0",
            },
        }

    def _scene(self, index: int) -> tuple[Scene, Combination | None]:
        """The scene of a sample, and in the split holdout the combination that it was made for."""
        if not 0 <= index < self._n:
            raise IndexError(f"sample {index} of {self._n}")

        def seed_of(attempt: int) -> int:
            again = ("again", attempt) if attempt else ()
            return stream_seed(self.seed, "shapes", self.split, index, *again)

        if self._held_out is None:
            return draw_scene(seed_of(0), objects=self.objects, sizes=self.sizes, shapes=self.shapes), None
        if self.split == "holdout":
            return self._held_out.scene_with(index, seed_of)
        return self._held_out.scene_without(seed_of), None
