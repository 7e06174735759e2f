"""The command ``gumbel``: the program of the Rust library, without the engine on Burn."""

import os
import signal
import sys

from . import _native


def main() -> int:
    """Runs the program with the arguments of this process, and returns its exit code."""
    # The interpreter only notes a signal, and looks at it when the program is back: Ctrl-C is to end what catches none.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    script = os.path.abspath(sys.argv[0])
    # How a sweep starts its runs.
    words = ["-m", __package__] if os.path.basename(script) == "__main__.py" else [script]
    return _native.command(["gumbel", *sys.argv[1:]], (sys.executable, words))
