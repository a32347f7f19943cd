"""How long a test waits for what must come. Only a hang outlasts it, however busy the machine is.

A time that the product promises is no such guard: it stands in its test, and is measured there.
"""

PATIENCE_S = 60.0
