"""Sound: recordings of words, and their spectrograms."""
