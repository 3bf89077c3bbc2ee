"""Faults made on purpose: power losses, kills, errors. Each kind prints a seed, and takes it back."""
