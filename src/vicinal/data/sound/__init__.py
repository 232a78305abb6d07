"""Sound: recordings of words, their spectrograms, and augmentation in batches."""
