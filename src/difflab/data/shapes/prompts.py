"""Templates of prompts for classes of the shapes data, in the words of its captions."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.data.shapes.scene import BACKGROUNDS, COLOURS, EXTENTS, SHAPES


def templates(class_names: Sequence[str]) -> list[str]:
    """For shapes, colours, or both (`red circle`): every size, and of what the name leaves open every other word.

    Raises ValueError for other names.
    """
    if all(name in SHAPES for name in class_names):
        return [f"a {size} {colour} {{}}" for size in EXTENTS for colour in COLOURS]
    if all(name in COLOURS for name in class_names):
        return [f"a {size} {{}} {shape}" for size in EXTENTS for shape in SHAPES]
    both = {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES}
    strange = next((name for name in class_names if name not in both), None)
    if strange is not None:
        raise ValueError(
            f"templates=shapes are for classes such as circle, red, or red circle, all of one kind, not {strange!r}: "
            "give templates=simple, or a file"
        )
    sizes = [f"a {size} {{}}" for size in EXTENTS]
    return sizes + [f"{text} on a {background} background" for text in sizes for background in BACKGROUNDS]
