"""Damaged inputs of every kind that the command line reads, drawn from a seed; see `faults.py`."""
