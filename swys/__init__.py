"""The command ``swys``, and what it does with a reader's own models and images.

From Python: ``from swys import compare``.
"""

from .result import Comparison, compare

__all__ = ["Comparison", "compare"]
