"""Training: settings, the loop, evaluation."""
