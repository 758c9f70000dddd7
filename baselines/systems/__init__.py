"""Schedulers of real systems, as they were built: vLLM, Sarathi-Serve, SGLang, Orca, FasterTransformer."""

ORDER = ("fastertransformer_static", "orca_reserved", "vllm_v0", "vllm_v1", "sarathi_paged", "sglang")
