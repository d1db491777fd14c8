"""Runs and sweeps: how a run is recorded, found again, compared and put in one table."""
