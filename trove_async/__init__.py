"""trove_async."""
