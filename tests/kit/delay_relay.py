"""A TCP relay through which everything takes longer: a long line between two machines.

`python -m tests.kit.delay_relay PORT TO_PORT DELAY_S`: each way takes so long, whatever the rate.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from contextlib import suppress

_PIECE = 16 << 10
_PIECES = 2000


def _pump(source: socket.socket, sink: socket.socket, delay_s: float) -> None:
    on_its_way: queue.Queue[tuple[float, bytes]] = queue.Queue(_PIECES)

    def arrive() -> None:
        piece = b"?"
        with suppress(OSError):
            while piece:
                due_s, piece = on_its_way.get()
                time.sleep(max(0.0, due_s - time.monotonic()))
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    threading.Thread(target=arrive, daemon=True).start()
    piece = b"?"
    while piece:
        try:
            piece = source.recv(_PIECE)
        except OSError:
            piece = b""
        on_its_way.put((time.monotonic() + delay_s, piece))


def main(port: int, to_port: int, delay_s: float) -> None:
    listener = socket.create_server(("0.0.0.0", port))
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", to_port))
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(one, other, delay_s), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
