"""text-generation-webui's own API on this machine; behind it the jobs of a RunPod endpoint."""
