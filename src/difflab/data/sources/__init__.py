"""The sources of shards: a folder for each, with its configuration."""
