"""The machine: how long a batch takes, the limits of an engine, and GPUs that were measured."""
