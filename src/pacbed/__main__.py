"""``python -m pacbed`` is the ``pacbed`` command."""

import sys

from pacbed.cli.main import main

sys.exit(main())
