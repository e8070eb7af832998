"""Synthetic raw data, and damage to it: for tests, demonstrations and `segdata draw`."""
