"""Learned policies as schedulers and routers, and the rules that they set the numbers of.

- `index`: the index policy; its numbers are parameters (`index_params`), tuned or set by hand.
- `learned_index`: the same rule; a small network sets its numbers before every batch.
- `learned_network`: an index for the calls of a network of engines.
- `learned_router`: which engine of a cluster serves a call.
- `pretrained`: trained weights of these, and the functions that load them.
"""
