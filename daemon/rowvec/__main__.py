from __future__ import annotations

import sys
from typing import Final

INTERRUPTED: Final = 130


def main() -> int:
    """Run the command line; `healthcheck` alone leaves the heavy imports out.

    Returns:
        The exit code of the process.
    """
    if sys.argv[1:2] == ["healthcheck"]:
        from rowvec import healthcheck  # noqa: PLC0415 - each command pays for its own imports only

        return healthcheck.main(sys.argv[2:])
    try:
        from rowvec import cli  # noqa: PLC0415

        return cli.main()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
