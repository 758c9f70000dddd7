"""The simulator: engines and networks of engines; state, primitives, the KV cache and the loop."""
