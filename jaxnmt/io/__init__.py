"""Files: atomic writes, locks, buckets, text in and out."""
