"""Data modules: where inputs come from, and how to show them as images again."""
