"""The worker's entry point: serves RunPod, or runs one local job and prints its result."""

import os
import sys

from worker.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
