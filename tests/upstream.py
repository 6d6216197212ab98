"""What text-generation-webui's own examples send."""

# text-generation-webui@snapshot-2023-11-05 api-examples/api-example-model.py
LOAD_ARGS = {
    "loader": "AutoGPTQ",
    "bf16": False,
    "load_in_8bit": False,
    "groupsize": 0,
    "wbits": 0,
    "threads": 0,
    "n_batch": 512,
    "no_mmap": False,
    "mlock": False,
    "cache_capacity": None,
    "n_gpu_layers": 0,
    "n_ctx": 2048,
    "rwkv_strategy": None,
    "rwkv_cuda_on": False,
    "gptq_for_llama": False,
}
