"""``python -m registry_storage``."""

import sys

from .cli import main

sys.exit(main())
