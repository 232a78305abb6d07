"""The forms that images come in, each read by one module; and data sets of other libraries."""
