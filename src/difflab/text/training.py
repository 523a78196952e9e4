"""Learns merges of byte pairs from one's own captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from difflab.errors import UserError
from difflab.text.byte_pairs import WORD_END, byte_characters
from difflab.text.clip import words_of
from difflab.text.config import SMALLEST_VOCABULARY

_LAST = 0xE000
"""The first of 256 private characters."""


def learn_merges(texts: Iterable[str], vocabulary: int) -> list[tuple[str, str]]:
    """The merges of a `CLIPTokenizer` with at most `vocabulary` ids, the most frequent pairs first (Sennrich et al.
    2016). The same texts give the same merges, in whatever order they come.

    There are fewer if no other pair occurs twice. Raises UserError if there are no words.
    """
    assert vocabulary >= SMALLEST_VOCABULARY, "every byte has an id"
    import tokenizers

    counts = Counter(word for text in texts for word in words_of(text))
    if not counts:
        raise UserError("there are no captions to learn a vocabulary from")
    characters = byte_characters()
    # A byte at the end of a word is a character of its own: the trainer numbers those of its alphabet in order, but
    # those with its own `end_of_word_suffix` as it meets them in a randomly ordered table, and numbers settle ties.
    last = {byte: chr(_LAST + byte) for byte in characters}
    spelled = {_spelled(word.encode("utf-8", "surrogatepass"), characters, last): n for word, n in counts.items()}
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        min_frequency=2,
        initial_alphabet=sorted([*characters.values(), *last.values()]),
        limit_alphabet=512,
        show_progress=False,
    )
    model.train_from_iterator((f"{word} " * n for word, n in sorted(spelled.items())), trainer)
    merges = json.loads(model.to_str())["model"]["merges"]
    endings = str.maketrans({last[byte]: character + WORD_END for byte, character in characters.items()})
    return [(first, second.translate(endings)) for first, second in merges]


def _spelled(word: bytes, characters: Mapping[int, str], last: Mapping[int, str]) -> str:
    return "".join(characters[byte] for byte in word[:-1]) + last[word[-1]]
