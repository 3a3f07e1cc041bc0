"""The command line: `lowtide [--site FILE] COMMAND`.
In: arguments. Out: text or JSON on stdout, one clear line on stderr where something is wrong, an exit code.
Every command imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; an error that lowtide raised on purpose becomes one line and its exit code."""
    from orchestrator.cli.app import app

    try:
        app()
    except Exception as fault:
        from jobs.spec.errors import LowtideError

        if not isinstance(fault, LowtideError):
            raise
        print(f"lowtide: {fault}", file=sys.stderr)
        raise SystemExit(fault.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
