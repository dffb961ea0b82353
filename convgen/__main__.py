"""``python -m convgen`` is the command ``convgen``."""

from __future__ import annotations

import sys

from convgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
