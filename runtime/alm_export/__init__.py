"""The command alm-export: export.py with the folders that it needs, wherever they are installed.

In the repository `export.py`, `exporters/` and `wrappers/` lie at its root. In a wheel they lie in
this folder, so that no package of such a common name is installed; here it becomes the first place
where Python looks for modules. It is no library: import nothing of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent
CHECKOUT = HOME.parent.parent
WANTED = "export.py"


def main() -> int:
    """The console script `alm-export`; its exit status."""
    from alm.cli import exit_status

    root = HOME if (HOME / WANTED).is_file() else CHECKOUT
    sys.path.insert(0, str(root))
    import export

    return exit_status.run(export.app, name="alm-export")
