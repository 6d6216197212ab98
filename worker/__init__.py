"""A RunPod serverless worker around text-generation-webui."""
