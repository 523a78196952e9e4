"""Speed, side by side with peers; run one as `python -m benchmarks.<name>` from a checkout."""
