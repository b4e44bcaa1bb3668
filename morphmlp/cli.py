"""The shape that all pipelines share: arguments, errors, exit codes.

Exit codes: 0 done, 2 a fault that the user can mend (one clear line each, no traceback), 130 Ctrl-C.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

from morphmlp.errors import MorphMLPError


def run(main: Callable[[], None]) -> NoReturn:
    """Run a pipeline's `main` and leave the process with its exit code."""
    try:
        main()
    except MorphMLPError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
