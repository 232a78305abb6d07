"""Reports: terminal table, Markdown, CSV, JSON, pictures, one HTML page."""
