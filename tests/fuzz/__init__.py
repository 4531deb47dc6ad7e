"""Readers of what others write, held against any bytes at all."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CORPUS = REPOSITORY / "tests" / "fuzz" / "corpus"
