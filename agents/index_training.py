"""`python -m agents.index_training`: train a network that steers the index policy."""

from agents.problems.index_policy import main

if __name__ == "__main__":
    main()
