"""The worker's entry point: serves RunPod, or runs one local job and prints its result."""

import time

first_statement = time.monotonic()  # before anything else is imported: the imports are timed

import os  # noqa: E402
import sys  # noqa: E402

from worker.app import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, first_statement))
