"""Scenes without the combinations held out of training, and scenes with one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from difflab.config.combinations import Combination, Look
from difflab.data.shapes.layout import Beginning, draw_scene, looks_of
from difflab.data.shapes.scene import Scene, SceneObject, relation
from difflab.errors import UserError

_TRIES = 10_000


def has(scene: Scene, combination: Combination) -> bool:
    """Whether the scene has an object, or a pair of objects in the relation, that the combination describes."""
    if combination.other is None:
        return any(_fits(combination.look, obj) for obj in scene.objects)
    return any(
        _fits(combination.look, a) and _fits(combination.other, b) and relation(a, b) == combination.relation
        for a in scene.objects
        for b in scene.objects
        if a is not b
    )


class Holdout:
    """Samples the scenes of a source that holds combinations out of training.

    objects, sizes, shapes: as in `draw_scene`.
    """

    def __init__(
        self,
        combinations: Sequence[Combination],
        *,
        objects: tuple[int, int],
        sizes: tuple[str, ...],
        shapes: tuple[str, ...],
    ) -> None:
        self.combinations = tuple(combinations)
        self.objects, self.sizes, self.shapes = objects, sizes, shapes
        single = [one.look for one in combinations if one.other is None]
        self._allowed = [
            number
            for number, (shape, colour) in enumerate(looks_of(shapes))
            if any(not any(look.fits(size, colour, shape) for look in single) for size in sizes)
        ]
        self._beginnings = [self._beginning(combination) for combination in combinations]

    def scene_without(self, seed_of: Callable[[int], int]) -> Scene:
        """The scene of `seed_of(0)`; if it has a held-out combination, another one with as many objects.

        Raises UserError if none is found.
        """
        scene = draw_scene(seed_of(0), objects=self.objects, sizes=self.sizes, shapes=self.shapes)
        count = min(len(scene.objects), len(self._allowed))
        for attempt in range(1, _TRIES):
            if not any(has(scene, combination) for combination in self.combinations):
                return scene
            scene = draw_scene(
                seed_of(attempt), objects=(count, count), sizes=self.sizes, shapes=self.shapes, looks=self._allowed
            )
        raise UserError(
            f"holdout leaves hardly any scene with {count} objects: of {_TRIES} drawn, each has a combination that is "
            "kept out; keep fewer out, or allow more objects"
        )

    def scene_with(self, number: int, seed_of: Callable[[int], int]) -> tuple[Scene, Combination]:
        """A scene that has combination `number` (modulo their count), with any number of objects, and that combination.

        Raises UserError if none is found.
        """
        at = number % len(self.combinations)
        combination, fewest = self.combinations[at], max(self.objects[0], len(self.combinations[at].looks))
        for attempt in range(_TRIES):
            scene = draw_scene(
                seed_of(attempt),
                objects=(fewest, self.objects[1]),
                sizes=self.sizes,
                shapes=self.shapes,
                beginning=self._beginnings[at],
            )
            if has(scene, combination):
                return scene, combination
        raise UserError(f"holdout: no scene was found that has {str(combination)!r}; leave it out")

    def _beginning(self, combination: Combination) -> Beginning:
        looks = list(enumerate(looks_of(self.shapes)))
        fitting = [
            [number for number, (shape, colour) in looks if Look(None, one.colour, one.shape).fits("", colour, shape)]
            for one in combination.looks
        ]
        numbers: list[tuple[int, ...]] = [(first,) for first in fitting[0]]
        if len(fitting) > 1:
            numbers = [(first, second) for first in fitting[0] for second in fitting[1] if first != second]
        sizes = [self.sizes if one.size is None else (one.size,) for one in combination.looks]
        return Beginning(numbers, sizes)


def _fits(look: Look, obj: SceneObject) -> bool:
    return look.fits(obj.size, obj.colour, obj.shape)
