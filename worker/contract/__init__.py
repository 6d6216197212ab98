"""The blocking API of text-generation-webui as data and pure code. Nothing here does I/O."""
