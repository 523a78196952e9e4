"""Tokenizers: from texts to the token ids that networks take."""
