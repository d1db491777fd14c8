"""How long things take. Each file prints one table; rivals take turns within one run.

``--quick`` makes any of them run through in seconds, with numbers that mean nothing.
"""
