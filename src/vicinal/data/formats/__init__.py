"""The forms that pictures come in, each read by one module; and data sets of other libraries."""
