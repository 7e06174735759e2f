"""``python -m gumbel_argmax``: the command ``gumbel``."""

import sys

from ._cli import main

sys.exit(main())
