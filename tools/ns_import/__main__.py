# SPDX-License-Identifier: Apache-2.0
"""The archive that is installed, and python3 -m ns_import with PYTHONPATH=tools."""

import sys

from ns_import.program import main

sys.exit(main())
