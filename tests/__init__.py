"""The suite: in folders as the product's, helpers beside what they help."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
