"""The Rust data engine (private; import from holdfast.engine). Working contract."""
from collections.abc import Iterator
from typing import Generic, TypeVar, final

from holdfast.engine.store import StoreSpec

T = TypeVar("T")

@final
class PoolConfig:             # defaults as in the format page
    def __init__(self, *, chunk_min: int = ..., chunk_avg: int = ..., chunk_max: int = ..., block_bytes: int = ..., pack_bytes: int = ...) -> None: ...
    chunk_min: int; chunk_avg: int; chunk_max: int; block_bytes: int; pack_bytes: int

@final
class StageCounters:
    name: str; items: int; bytes: int; busy_ns: int; starved_ns: int; blocked_ns: int

@final
class Counters:               # snapshot
    files: int; dirs: int; others: int; bytes_found: int; bytes_read: int; bytes_online: int
    files_changed: int; files_unchanged: int; chunks_looked_up: int; chunks_hit: int
    bytes_new: int; bytes_transmitted: int; bytes_stored: int; findings: int
    bytes_total: int; files_total: int     # known goal for progress (0 = not yet known)
    stages: list[StageCounters]

@final
class Finding:
    path: bytes; code: str; message: str; severity: str      # "warning" | "error"

@final
class Entry:                  # one name in an image
    name: bytes; kind: str    # file dir symlink fifo socket char block
    mode: int; uid: int; gid: int; user: str | None; group: str | None
    mtime_ns: int; ctime_ns: int; inode: int; nlink: int; size: int
    target: bytes | None; rdev: tuple[int, int] | None; xattrs: dict[bytes, bytes]; chunks: int

@final
class Image:                  # a manifest
    id: str                   # 32 hex
    number: int; source: str; host: str; paths: list[bytes]
    started_ns: int; finished_ns: int; parent: str | None; status: str
    stats: dict[str, int]; findings: list[Finding]; findings_total: int; software: str

class Run(Generic[T]):         # a verb at work in engine threads
    def counters(self) -> Counters: ...
    def cancel(self) -> None: ...                       # prompt; result() then raises Cancelled
    def wait(self, timeout_s: float) -> bool: ...       # True when finished; GIL released
    def result(self) -> T: ...                          # waits; raises the verb's error
    def findings(self) -> list[Finding]: ...            # so far (first 1000)

@final
class RestoreResult: files: int; dirs: int; bytes: int; findings: list[Finding]; findings_total: int; verified_files: int
@final
class VerifyResult: images: int; chunks: int; packs: int; bytes_read: int; problems: list[Finding]; problems_total: int
@final
class GarbageResult: packs_before: int; packs_deleted: int; packs_rewritten: int; bytes_freed: int; bytes_live: int; bytes_total: int; chunks_live: int; chunks_total: int; waiting_for: list[str]; dry_run: bool
@final
class PoolStats: packs: int; pack_bytes: int; chunks: int; chunk_bytes: int; index_segments: int; index_bytes: int; images: int

@final
class ChangeBatch:            # rows ready for executemany
    dirs: list[bytes]         # directory paths used by the rows, e.g. b"/", b"/home/x"
    rows: list[tuple[int, bytes, int, int, int, int, int, int, int, int]]
    # (index into dirs, name, change, kind, size, mtime_ns, mode, uid, gid, inode)
    # change: 1 added, 2 removed, 3 changed (content or metadata; row shows the new state)
    # kind: 0 file 1 dir 2 symlink 3 fifo 4 socket 5 char 6 block

@final
class FileReader:
    size: int
    def read_at(self, offset: int, length: int) -> bytes: ...

@final
class Mount:
    def unmount(self) -> None: ...
    def wait(self, timeout_s: float) -> bool: ...

@final
class Pool:
    @staticmethod
    def create(store: StoreSpec, pool_key: bytes, config: PoolConfig, created_ns: int) -> Pool: ...   # raises if one is there
    @staticmethod
    def open(store: StoreSpec, pool_key: bytes, cache_dir: str | None = None) -> Pool: ...
    @staticmethod
    def peek(store: StoreSpec) -> bytes: ...            # pool id (16 bytes) without the key; NotAPool / NewerFormat
    id: bytes
    config: PoolConfig
    def backup(self, *, paths: list[bytes], source: str, host: str, started_ns: int, exclude: list[str] = ..., one_file_system: bool = False,
               compression: int = 3, workers: int = 0, skip_marked: bool = True, parent: str | None = None, software: str = ...) -> Run[Image]: ...
    def restore(self, image: str, *, paths: list[bytes], to: bytes, overwrite: str = "never", strip_components: int = 0, verify: bool = False, workers: int = 0) -> Run[RestoreResult]: ...
    def verify(self, images: list[str] | None, *, read_data: bool = False) -> Run[VerifyResult]: ...
    def check(self, *, read_data: bool = False) -> Run[VerifyResult]: ...
    def collect_garbage(self, *, now_ns: int, dry_run: bool = False, lease_s: int = 86400) -> Run[GarbageResult]: ...
    def rebuild_index(self) -> Run[PoolStats]: ...
    def merge_index(self) -> Run[PoolStats]: ...
    def stats(self) -> PoolStats: ...
    def images(self) -> list[Image]: ...                # by number
    def image(self, id: str) -> Image: ...              # full id
    def expire(self, id: str) -> None: ...
    def entry(self, image: str, path: bytes) -> Entry: ...
    def list_dir(self, image: str, path: bytes) -> list[Entry]: ...
    def changes(self, old: str | None, new: str | None, *, batch_rows: int = 50000) -> Iterator[ChangeBatch]: ...   # None = empty tree
    def open_file(self, image: str, path: bytes) -> FileReader: ...
    def mount(self, image: str, at: str, allow_other: bool = False) -> Mount: ...

def error_codes() -> list[str]: ...                    # every code the engine can raise
def engine_version() -> str: ...
