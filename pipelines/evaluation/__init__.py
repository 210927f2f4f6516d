"""Decoding a split, scoring and timing it, and the files, tables and reports that come of it."""
