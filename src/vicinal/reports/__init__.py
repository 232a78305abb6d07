"""Reports: terminal output, Markdown, CSV, JSON, figures, and one HTML page."""
