"""RunPod's queue on one machine: a server that workers and clients talk to as they do to RunPod."""
