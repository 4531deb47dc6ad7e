"""What the documentation and the code must look like, each rule with its reason."""

from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
