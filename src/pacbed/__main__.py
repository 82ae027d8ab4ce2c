"""``python -m pacbed`` is the ``pacbed`` command."""

import sys

from pacbed.cli import main

sys.exit(main())
