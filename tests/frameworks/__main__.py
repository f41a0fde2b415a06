"""`python tests/frameworks` writes the table of docs/trainers.md, in the environment of `make integrations`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from frameworks.page import write

write()
