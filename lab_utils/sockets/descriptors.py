"""Makes room for sockets: raises the soft limit of open files, and names the remedy where the hard one is too low."""

from __future__ import annotations

from lab_utils.values.profiles import UsageError

__all__ = ["TooFewDescriptors", "room_for"]

_BESIDE = 256
"""Descriptors for everything but the sockets: libraries, pipes, a kernel's own connections."""


class TooFewDescriptors(UsageError):
    """The process may not open as many files as there are to be sockets."""


def room_for(sockets: int) -> None:
    """Let this process hold so many sockets with both of their ends, two descriptors each.

    Raises the soft limit (of the whole process, for as long as it lives) only as far as needed. Raises
    `TooFewDescriptors` with the remedy.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    needed = 2 * sockets + _BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or needed <= soft:
        return
    try:
        if hard != unlimited and needed > hard:
            raise ValueError(f"the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError) as error:
        raise TooFewDescriptors(
            f"{sockets} sockets in one process need {needed} open files ({error}); raise the limit with "
            f"`ulimit -n {needed}` before the start, or lower the number of users"
        ) from error
