"""``python -m swys``; several GPUs or nodes: ``accelerate launch -m swys train ...``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
