"""Captions to tokenize: the words of CLIP's vocabulary as often as it expects them, plain or with what ftfy is for."""

from __future__ import annotations

import numpy as np

from difflab.text.byte_pairs import WORD_END
from difflab.text.vocabularies import clip_merges

WORDS = (5, 16)
"""The fewest words of a caption, and one more than the most."""
ODD = (
    "caf\u00e9",
    "na\u00efve",
    "\u201cquoted\u201d",
    "rock &amp; roll",
    "&lt;b&gt;bold&lt;/b&gt;",
    "\u6771\u4eac\u30bf\u30ef\u30fc",
    "\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433",
    "\U0001f642\U0001f44d\U0001f3fd",
    "\u00bd cup",
    "so\u00a0far",
    "it\u2019s",
    "sch\u00c3\u00b6n",
)
"""Accents, curly quotes, entities, other scripts, emoji, and text that was decoded wrongly."""


def plain(count: int, seed: int) -> list[str]:
    """ASCII captions that cleaning leaves as they are but for case."""
    generator = np.random.default_rng(seed)
    words = _words()
    share = 1.0 / (np.arange(len(words)) + 10.0)
    captions = []
    for length in generator.integers(*WORDS, size=count):
        chosen = [words[number] for number in generator.choice(len(words), length, p=share / share.sum())]
        chosen[-1] += generator.choice(["", ".", ", 2019", "!"])
        captions.append(" ".join([chosen[0].capitalize(), *chosen[1:]]))
    return captions


def mixed(count: int, seed: int) -> list[str]:
    """The same, each with something that is not plain ASCII."""
    generator = np.random.default_rng(seed)
    captions = []
    for caption in plain(count, seed):
        words = caption.split(" ")
        words.insert(int(generator.integers(len(words) + 1)), str(generator.choice(ODD)))
        captions.append(" ".join(words))
    return captions


def _words() -> list[str]:
    """Whole words, those that were joined first in front: they are the frequent ones."""
    joined = ("".join(pair) for pair in clip_merges())
    whole = (token.removesuffix(WORD_END) for token in joined if token.endswith(WORD_END))
    return [word for word in whole if word.isascii() and word.isalpha()]
