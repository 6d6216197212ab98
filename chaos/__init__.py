"""Breaks the worker on purpose and tells what its users saw: `scripts/chaos`."""
