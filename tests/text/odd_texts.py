# ruff: noqa: RUF001
"""A thousand texts of every kind: words of many scripts, emoji, HTML, control characters, long ones."""

from __future__ import annotations

import random

_PIECES = (
    [
        "a small red circle",
        "UPPER Case",
        "it's we've I'LL he'd",
        "3.14159 50%",
        "--- === ...",
        "snake_case",
        "'save 're's",
    ],
    [
        "café naïve façade",
        "Straße ſatz",
        "日本語の テキスト",
        "한국어 문장",
        "Привет, мир!",
        "مرحبا",
        "Γειά σου",
        "Ⅷ ½ ²",
        "ﬁne ﬂow",
    ],
    [
        "😀 test",
        "👩‍👩‍👧‍👦",
        "🇩🇪🇫🇷",
        "“quoted” ‘single’",
        "em—dash",
        "ａｂｃ",
        "e\u0301",
        "ÃƒÂ©",
        "schÃ¶n",
        "â€œhiâ€\x9d",
    ],
    ["a &amp; b", "&lt;b&gt;", "&amp;lt;", "&#x27;", "&nbsp;x", "<b>bold</b>", "&notanentity;", "a & b", "&copy 2024"],
    [
        "\x00\x01",
        "\x1b[31mred",
        "\x0b\x0c",
        "\x1c\x1d",
        "\x85",
        "\u2028\u2029",
        "\u200b",
        "\ufeff",
        "\xa0",
        "\x7f",
        "\r\n",
        "\t\n",
    ],
    ["<|startoftext|>x", "y<|endoftext|>", "<|", "|>"],
)


def odd_texts(count: int = 1000) -> list[str]:
    """Always the same texts; the last has 10,000 characters."""
    generator = random.Random(0)
    everything = [piece for kind in _PIECES for piece in kind]
    texts = ["", " ", "\n", *everything]
    while len(texts) < count - 1:
        kind = generator.choice([everything, *_PIECES])
        pieces = generator.choices(kind, k=generator.randint(1, 6))
        if generator.random() < 0.3:
            pieces.append(
                "".join(
                    chr(generator.choice([generator.randrange(32, 127), generator.randrange(1, 0xD800)]))
                    for _ in range(9)
                )
            )
        texts.append(generator.choice(["", " ", "  "]).join(pieces))
    return [*texts, ("word, " * 1700)[:10_000]]
