"""The simulator: state, batch-time laws, batching primitives, the advance loop and its records."""
