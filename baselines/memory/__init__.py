"""Schedulers that admit a request only if KV memory will suffice once it has grown."""

ORDER = ("mc_sf", "alpha_protection", "svf")
