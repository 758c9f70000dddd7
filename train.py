"""Train a scheduler and compare it with the baselines: `llmsched train` from a clone."""

import sys

from llmsched_env.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
