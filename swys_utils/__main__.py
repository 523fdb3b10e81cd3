"""``python -m swys_utils ...`` is ``swys ...`` (what ``accelerate launch -m`` needs)."""

import sys

from .cli import main

sys.exit(main())
