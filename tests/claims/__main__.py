"""``make tables``: writes the table of docs/private-corners.md and docs/house.md anew."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from claims import house
from claims.page import unexplained, write

if names := unexplained():
    sys.exit(f"{', '.join(names)}: give a reason in tests/claims/reasons.py first")
write()
house.PAGE.write_text(house.made(), encoding="utf-8")
