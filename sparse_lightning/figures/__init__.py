"""Figures: tables and arrays in, matplotlib Figure out."""
