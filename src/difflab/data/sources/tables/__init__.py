"""Tables of captions, and of images, as CSV, TSV, JSON lines and parquet."""
