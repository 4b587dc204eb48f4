"""Objects that stay for as long as the process does: the collector of cycles need not look at them.

Must not be used for what is dropped often: cycles among what was set aside are found only after the
next time.
"""

from __future__ import annotations

import gc


def set_aside() -> None:
    """Have collections pass over everything that is alive now.

    A collection looks at every object that there is, unless it is set aside. With the schedules of
    thousands of policies in memory that takes a fifth of a second, whenever it happens.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
