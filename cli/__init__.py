"""The command line: jobs of an endpoint or of the emulator, and a doctor for the machine."""
