"""The four stylised schedulers of arXiv 2504.07347, Table 1."""

ORDER = ("fastertransformer", "vllm_prefill_first", "orca", "sarathi")
