"""DistServe: prefill and decode on separate engines (OSDI 2024, arXiv 2401.09670)."""

from llmsched_env.simulator.pools import Pools
from llmsched_env.validation import check_integer, check_number


def distserve_pools(
    prefill: int, decode: int, kv_bytes_per_token: float = 0.0, bandwidth: float = 25e9, latency: float = 0.0
) -> Pools:
    """Roles of `prefill` engines followed by `decode` engines, for `simulate_network(..., pools=...)`.

    A call prefills on the engine that the router first chooses, which yields its first token. Then its KV cache moves
    to an engine that decodes, for which the router is asked again:

        engines = [ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")] * 3
        pools = distserve_pools(2, 1, kv_bytes_per_token=131072)
        simulate_network(baselines.sarathi(token_budget=2048), workload, engines, join_shortest_queue, pools=pools)

    Args:
        prefill: engines that only prefill.
        decode: engines that only decode.
        kv_bytes_per_token: size of the KV cache of one token.
        bandwidth: bytes/s of the link from one engine to another.
        latency: s that a move takes in addition.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    check_integer("prefill", prefill, at_least=1, unit="engines")
    check_integer("decode", decode, at_least=1, unit="engines")
    check_number("kv_bytes_per_token", kv_bytes_per_token, at_least=0, unit="bytes")
    check_number("bandwidth", bandwidth, above=0, unit="bytes/s")
    check_number("latency", latency, at_least=0, unit="s")
    return Pools(("prefill",) * prefill + ("decode",) * decode, latency, kv_bytes_per_token / bandwidth)
