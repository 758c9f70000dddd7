"""The benchmark: learned policies against the best baseline tuned for each cell of the suite."""
