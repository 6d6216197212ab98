"""On PYTHONPATH this folder puts a stand-in in the place of the embedded engine's library."""
