"""Where shards are made from: a folder for each source, with its configuration."""
