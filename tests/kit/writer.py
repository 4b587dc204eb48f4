"""A process that backs one directory up into a pool, for tests with several writers.

``python -m tests.kit.writer URL DIRECTORY TIMES`` says ``ready``, waits for a line, then backs up
TIMES times and prints each image's id. The passphrase of the pool is ``words``.
"""

from __future__ import annotations

import os
import sys

from holdfast.vault import Passphrase, open_pool


def main(url: str, directory: str, times: int) -> None:
    """Back up on command."""
    pool = open_pool(url, secret=Passphrase("words"), cache_dir=None)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(times):
        run = pool.backup(
            paths=[os.fsencode(directory)],
            source=f"writer:{directory}",
            host="writer",
            started_ns=1_700_000_000_000_000_000 + number,
        )
        image = run.result()
        if image.status != "completed":
            raise SystemExit([finding.message for finding in run.findings()])
        print(image.id, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
