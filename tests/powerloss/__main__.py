"""`python -m tests.powerloss --images 10000 [--jobs 2] [--seed S]`: crash images of real write logs, judged.

Exit status 1 if any image is violated: each is told with its seed and kept as files; 2 if nothing can be recorded here.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.powerloss.campaign import Tally, try_images
from tests.powerloss.recorder import CannotRecord

IMAGES_A_RECORD = 200


def main() -> int:
    arguments = _parser().parse_args()
    records = -(-arguments.images // IMAGES_A_RECORD)
    seeds = arguments.record or [f"{arguments.seed}/{number}" for number in range(records)]
    print(f"seed {arguments.seed}: {len(seeds)} records, {IMAGES_A_RECORD} images of each", flush=True)
    keep = Path(tempfile.mkdtemp(prefix="powerloss"))
    work = partial(try_images, images=IMAGES_A_RECORD, synchronous=arguments.synchronous, keep=keep)
    started_s = time.monotonic()
    tally = Tally()
    try:
        with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            for done in pool.map(work, seeds):
                tally.join(done)
    except CannotRecord as reason:
        print(reason, file=sys.stderr)
        return 2
    _report(tally, time.monotonic() - started_s)
    if not tally.violations:
        keep.rmdir()
    return 1 if tally.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.powerloss", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="at least so many (default 10000)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)), help="default: a fresh one")
    parser.add_argument("--record", action="append", help="only this one, as a violation tells it; may be repeated")
    parser.add_argument(
        "--synchronous", choices=("OFF", "NORMAL"), help="instead of what otocod sets: shows what the campaign catches"
    )
    return parser


def _report(tally: Tally, took_s: float) -> None:
    print(
        f"{tally.images} images ({tally.distinct} distinct) of {tally.operations} operations in {took_s:.0f} s"
        f" ({tally.images / took_s:.1f}/s): {len(tally.violations)} violations"
    )
    print(", ".join(f"{count} {style}" for style, count in tally.styles.most_common()))
    for text in tally.violations[:50]:
        print(f"  {text}")


if __name__ == "__main__":
    sys.exit(main())
