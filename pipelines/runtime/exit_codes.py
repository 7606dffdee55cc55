"""How every command ends: silently, or with one line that says what to do and an exit code for the kind of error."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from types import TracebackType
from typing import NoReturn

from fixres.pipelines.runtime.allocator import tune_allocator
from fixres.pipelines.runtime.openmp import configure_openmp
from fixres.pipelines.runtime.terminal import PrintableStream
from fixres.pipelines.spec import InputError, one_line

EXIT_INPUT = 2  # a mistake in the call or in the data
EXIT_SYSTEM = 3  # disk, memory, permission
EXIT_PREEMPTED = 75  # stopped by a signal after saving a checkpoint: run the same command again (EX_TEMPFAIL)
EXIT_STALLED = 76  # no progress for too long, see fixres.fault_tolerance.watchdog; the last checkpoint is valid
EXIT_LOST_PEER = 77  # another process of the run has died; the launcher must start all of them again
EXIT_PIPE = 141  # nobody reads the output any more, as shells report SIGPIPE
EXIT_INTERRUPT = 130  # Ctrl-C, as shells report it
_WITHOUT_CLEANUP = (EXIT_PREEMPTED, EXIT_LOST_PEER, EXIT_INTERRUPT)


def run(main: Callable[[], None]) -> None:
    """Calls `main` and ends the process. Configures OpenMP and the allocator first, for a `main` that imports torch.

    Control characters in what it prints are escaped. A user's mistake (`InputError`), a failing disk (`OSError`) and
    Ctrl-C end in one line on stderr. Any other exception is a bug and keeps its traceback, escaped, too.
    """
    sys.excepthook = _print_traceback
    configure_openmp()
    tune_allocator()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and classes may be undecodable bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    # `timeout` and job schedulers send SIGTERM. As KeyboardInterrupt it lets `finally` clauses remove temporary files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `fixres.__main__` sets it for the time of imports
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with redirect_stdout(PrintableStream(sys.stdout)), redirect_stderr(PrintableStream(sys.stderr, has_bars=True)):
            main()
    except InputError as error:
        leave(str(error), EXIT_INPUT)
    except KeyboardInterrupt as interrupt:
        # Ctrl-C itself has no text; a command that kept something says so.
        leave(str(interrupt) or "interrupted; unfinished files have not got their final names", EXIT_INTERRUPT)
    except BrokenPipeError:  # as of `fixres inspect DATA | head`: the reader of the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_PIPE)
    except OSError as error:
        leave(_describe(error), EXIT_SYSTEM)
    except RuntimeError as error:  # of a signal handler of torch, which raises it wherever the main thread is
        if not is_dead_worker(error):
            raise
        leave("a worker process died, most often because memory ran out; lower the number of workers", EXIT_INPUT)


def is_dead_worker(error: RuntimeError) -> bool:
    """Whether torch says by it that a worker process died, and not that our code failed in one."""
    return "DataLoader worker (pid" in str(error)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    traceback.print_exception(kind, error, trace, file=PrintableStream(sys.stderr))


def _describe(error: OSError) -> str:
    named = not error.filename or str(error.filename) in str(error.strerror)
    place = "" if named else f": {error.filename}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{place}; free some space or choose another folder, then run the same command again, a "
            "training with --resume auto"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"not allowed to write or read{place}; check the folder's permissions"
    if error.errno == errno.ELOOP:
        return f"a link is not followed here{place}; remove it"
    return f"{error.strerror or error}{place}"


def leave(line: str, code: int) -> NoReturn:
    """Ends the process with a line on stderr and an exit code."""
    sys.stderr.write(one_line(f"{os.path.basename(sys.argv[0])}: {' '.join(line.split())}") + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a loader may still run native code; they must not keep the process alive or print a traceback.
    os._exit(code) if code in _WITHOUT_CLEANUP else sys.exit(code)
