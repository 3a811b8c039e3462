"""Where the runs of a grid are made: by processes of this machine, or by the workers of a Dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab_utils.batch.errand import Brought, Errand, carry_out, carry_out_on_worker, lab_here
from lab_utils.runner.forkserver import is_available
from lab_utils.runner.server import SERVER_VARIABLE, server
from lab_utils.values.profiles import UsageError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Place", "PlaceLost", "cluster", "here", "made"]

_ANSWERS_WITHIN_S: Final = 15
_LEAST_UNDER_WAY: Final = 8
_LOOK_EACH_S: Final = 0.5


class PlaceLost(Exception):
    """Runs can no longer be made there; those that came back are kept."""


@dataclass(frozen=True, slots=True)
class Place:
    """Makes runs. `under_way`: so many are handed out at once, which are its processes and a few that wait for them."""

    executor: Executor
    work: Callable[[Errand], Brought]
    under_way: Callable[[], int]
    about: Callable[[], str]


@contextmanager
def here(at_once: int, calibrations: Path) -> Iterator[Place]:
    """While inside, runs are made by processes of this machine, which share this process's fork server and its slots;
    afterwards none is left."""
    from lab_utils.runner.calibrations import KEPT_VARIABLE

    over = threading.Event()
    environment = {KEPT_VARIABLE: str(calibrations)} | ({SERVER_VARIABLE: server().address} if is_available() else {})
    work = partial(carry_out, environment=environment, here=Path.cwd(), is_wanted=lambda: not over.is_set())
    executor = ThreadPoolExecutor(at_once, thread_name_prefix="run")
    try:
        yield Place(executor, work, lambda: at_once, lambda: f"{at_once} at once")
    finally:
        over.set()
        executor.shutdown(cancel_futures=True)


@contextmanager
def cluster(address: str) -> Iterator[Place]:
    """While inside, runs are made by the workers of the scheduler at that address; afterwards it has none of ours.

    Dask makes the run of a worker that is lost on another one. Raises `UsageError` where no scheduler answers, and
    where one of its workers has another version of the lab.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=_ANSWERS_WITHIN_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--on {address}: no scheduler answers there ({error}); `dask scheduler` starts one"
        ) from error
    with client:
        _check(client, address)
        executor = client.get_executor(pure=False)  # type: ignore[no-untyped-call]
        try:
            yield Place(
                executor,
                carry_out_on_worker,
                lambda: max(_LEAST_UNDER_WAY, 2 * sum(_threads(client))),
                lambda: _workers(client, address),
            )
        finally:
            executor.shutdown(wait=False)


def _check(client: Client, address: str) -> None:
    try:
        there = client.run(lab_here)
    except Exception as error:
        raise UsageError(
            f"--on {address}: a worker cannot make runs ({type(error).__name__}: {error}); "
            "install agent-registry-lab[lab,dask] of this version there"
        ) from error
    for worker, lab in there.items():
        if lab != lab_here():
            raise UsageError(
                f"--on {address}: worker {worker} runs {lab}, this is {lab_here()}; install the same on both"
            )


def _threads(client: Client) -> Iterable[int]:
    return [one["nthreads"] for one in client.scheduler_info(n_workers=-1)["workers"].values()]


def _workers(client: Client, address: str) -> str:
    count = len(list(_threads(client)))
    return f"{count} worker{'' if count == 1 else 's'}" if count else f"no worker yet: dask worker {address}"


def made(
    place: Place, errands: Iterable[Errand], on_wait: Callable[[], None]
) -> Iterator[tuple[Errand, Brought | Exception]]:
    """Each errand with its result, or the error that kept it from being made, as they end.

    `on_wait` is called about twice a second while nothing ends. Raises `PlaceLost` where the place is gone.
    """
    waiting = iter(errands)
    pending: dict[Future[Brought], Errand] = {}
    while True:
        while len(pending) < place.under_way() and (errand := next(waiting, None)) is not None:
            try:
                pending[place.executor.submit(place.work, errand)] = errand
            except RuntimeError as error:
                raise PlaceLost(f"no run can be handed out: {error}") from error
        if not pending:
            return
        done, _ = wait(pending, timeout=_LOOK_EACH_S, return_when=FIRST_COMPLETED)
        if not done:
            on_wait()
        for future in done:
            yield pending.pop(future), _brought(future)


def _brought(future: Future[Brought]) -> Brought | Exception:
    try:
        return future.result()
    except CancelledError as error:
        raise PlaceLost("the connection to the scheduler was lost") from error
    except Exception as error:
        return error
