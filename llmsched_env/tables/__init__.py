"""Tables of requests and of tasks: what a simulation is given."""
