"""Findings to a page, to sentences, to JSON. The only home of plotly; nothing is computed here."""
