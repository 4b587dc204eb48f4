"""A media server's data path in a process of its own.

`python -m tests.kit.media_process DIRECTORY ADDRESS`: serves the pool in ``DIRECTORY/pool``, says
its port and a token for a backup, for each line of input a token for a restore, or one for another
backup where the line is ``backup IMAGE``, and ends when its input does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from holdfast.engine import Pool
from tests.kit.machine_identities import Machines
from tests.kit.transfer_site import transfer_site


def main(directory: Path, address: str) -> None:
    pool = Pool.open(str(directory / "pool"), bytes(range(32)))
    machines = Machines(directory)
    machines.client("alpha")
    with transfer_site(
        directory, pool, address=address, machines=machines, pool_id=pool.id.hex()
    ) as site:
        print(json.dumps({"port": site.port, "token": site.token()}), flush=True)
        for line in sys.stdin:
            if line.startswith("backup "):
                parent = line.split()[1]
                print(json.dumps({"token": site.token(job=3, parent=parent)}), flush=True)
                continue
            images = frozenset(pool.image_ids())
            token = site.token(job=2, verbs=frozenset({"restore"}), images=images)
            print(json.dumps({"token": token, "refused": site.codes()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
