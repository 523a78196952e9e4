"""Learns merges of byte pairs from one's own captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from difflab.errors import UserError
from difflab.text.byte_pairs import WORD_END, byte_characters
from difflab.text.clip import words_of
from difflab.text.config import SMALLEST_VOCABULARY


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
    spelled = {"".join(characters[b] for b in word.encode("utf-8", "surrogatepass")): n for word, n in counts.items()}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix=WORD_END))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        min_frequency=2,
        initial_alphabet=sorted(characters.values()),
        limit_alphabet=256,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    model.train_from_iterator((f"{word} " * n for word, n in sorted(spelled.items())), trainer)
    merges = json.loads(model.to_str())["model"]["merges"]
    return [(first, second) for first, second in merges][: vocabulary - SMALLEST_VOCABULARY]
