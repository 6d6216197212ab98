"""The engines: how each is launched, known to be ready, and spoken to. One module an engine."""
