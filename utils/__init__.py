"""Utilities: flags and one-line errors, checkpoints, and the optimizer Muon."""
