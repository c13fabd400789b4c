"""Many cases in processes of their own, each bounded in memory."""

import multiprocessing
import os
import resource
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.fuzz.harness import Result, run
from tests.fuzz.targets import TARGETS

# Over what is there at the start, in MiB: hostile input must not make the daemon grow.
_GROWTH_MIB = 512


def run_parts(name: str, seed: int, cases: int, jobs: int) -> Result:
    step = -(-cases // max(jobs, 1))
    parts = [range(start, min(start + step, cases)) for start in range(0, cases, step)]
    result = Result()
    with ProcessPoolExecutor(len(parts), mp_context=multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(partial(_part, name, seed), parts):
            result.add(part)
    return result


def _part(name: str, seed: int, numbers: range) -> Result:
    target = TARGETS[name]()
    bound = _address_space() + _GROWTH_MIB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    try:
        result = run(target, seed, numbers)
    finally:
        target.close()
    result.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
