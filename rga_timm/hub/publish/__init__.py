"""Checkpoints to publish: packed, described, checked, uploaded."""
