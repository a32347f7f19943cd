"""All planted bugs by name, in the order of the three verbs."""

from typing import Final

from tools.planted.act import ACT
from tools.planted.bugs import Bug
from tools.planted.decide import DECIDE
from tools.planted.decide_storage import DECIDE_STORAGE
from tools.planted.turn import TURN
from tools.planted.watch import WATCH

BUGS: Final[dict[str, Bug]] = {bug.name: bug for bug in (*DECIDE, *DECIDE_STORAGE, *TURN, *WATCH, *ACT)}
