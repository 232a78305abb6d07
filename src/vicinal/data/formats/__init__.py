"""Readers of image formats, one module each, and of data sets from other libraries."""
