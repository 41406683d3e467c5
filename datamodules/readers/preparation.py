"""Reports of what a data set needs before a run can begin: files fetched, copied, listed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Tell = Callable[[str, int, int], None]
Item = TypeVar("Item")


_tell: ContextVar[Tell] = ContextVar("tell", default=lambda what, done, total: None)


@contextmanager
def reporting_to(tell: Tell) -> Iterator[None]:
    """Call tell, within this context, with the work, how much of it is done, and how much there is (0: not known).

    A call means that there was progress since the last one. Calls come one at a time, but not all from this thread.
    """
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def listener() -> Tell:
    """Return the function to report to; for use from other threads too."""
    return _tell.get()


def counted(what: str, items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items; report after each."""
    tell = listener()
    for done, item in enumerate(items, 1):
        yield item
        tell(what, done, len(items))
