"""Texts in tables, as tokens."""
