"""Frozen text encoders that condition other networks: BERT, T5 and CLIP of transformers, and CLIPs of difflab."""
