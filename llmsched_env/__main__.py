"""`python -m llmsched_env` is `llmsched`."""

import sys

from llmsched_env.cli.app import main

sys.exit(main())
