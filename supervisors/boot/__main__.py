"""Run the program as a module: `python -m supervisors.boot`."""

import sys

from supervisors.boot import main

sys.exit(main())
