"""Procedural scenes of coloured shapes, with captions, classes and exact boxes."""

from difflab.data.shapes.captions import caption, paraphrases
from difflab.data.shapes.layout import draw_scene
from difflab.data.shapes.render import render
from difflab.data.shapes.scene import BACKGROUNDS, COLOURS, EXTENTS, SHAPES, Scene, SceneObject, relation
from difflab.data.shapes.source import ShapesSource, class_label, class_names

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "EXTENTS",
    "SHAPES",
    "Scene",
    "SceneObject",
    "ShapesSource",
    "caption",
    "class_label",
    "class_names",
    "draw_scene",
    "paraphrases",
    "relation",
    "render",
]
