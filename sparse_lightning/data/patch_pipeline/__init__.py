"""From a folder of photographs to whitened patches on disk, step by step."""
