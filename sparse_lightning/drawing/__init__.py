"""Figures of the studies, each drawn from its findings alone."""
