"""The Rust data engine. Private: import from `holdfast.engine`.

Types are real classes of the extension module, frozen, with plain attributes. All errors are
classes of `holdfast.base.errors`. Times are nanoseconds since 1970 (UTC), sizes are bytes, paths
and names are bytes as the file system has them.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, final

from holdfast.engine.inside import InsideFiles
from holdfast.engine.link import Link
from holdfast.engine.store import StoreSpec

__all__ = [
    "ChangeBatch",
    "Changes",
    "ClientKey",
    "Counters",
    "DiskInput",
    "DiskMap",
    "DiskSink",
    "DiskSource",
    "Entry",
    "FileReader",
    "Finding",
    "GarbageResult",
    "Image",
    "Mount",
    "Pool",
    "PoolConfig",
    "PoolStats",
    "PosixStore",
    "Receiver",
    "RemotePool",
    "RestoreResult",
    "Run",
    "StageCounters",
    "TreeWriter",
    "TrigramSegment",
    "Trigrams",
    "VerifyResult",
    "WholeTree",
    "client_key_of",
    "engine_version",
    "error_codes",
    "keep_freed_memory",
    "unwrap_key",
    "wrap_key",
]

_T = TypeVar("_T")

@final
class PoolConfig:
    """What a pool is made with; it never changes afterwards. See the page on the pool header."""

    def __new__(
        cls,
        *,
        chunk_min: int | None = None,
        chunk_avg: int | None = None,
        chunk_max: int | None = None,
        block_bytes: int | None = None,
        pack_bytes: int | None = None,
    ) -> PoolConfig: ...
    @property
    def chunk_min(self) -> int: ...
    @property
    def chunk_avg(self) -> int: ...
    @property
    def chunk_max(self) -> int: ...
    @property
    def block_bytes(self) -> int: ...
    @property
    def pack_bytes(self) -> int: ...

@final
class StageCounters:
    """One stage at a moment: what it did, and how long it worked and waited."""

    @property
    def name(self) -> str: ...
    @property
    def items(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def busy_ns(self) -> int: ...
    @property
    def starved_ns(self) -> int: ...
    @property
    def blocked_ns(self) -> int: ...

@final
class Counters:
    """A verb's numbers at a moment."""

    @property
    def files(self) -> int: ...
    @property
    def dirs(self) -> int: ...
    @property
    def others(self) -> int: ...
    @property
    def bytes_found(self) -> int: ...
    @property
    def bytes_read(self) -> int:
        """Read from the source by a backup, written to the destination by a restore."""
    @property
    def bytes_online(self) -> int:
        """Sizes of the files that changed."""
    @property
    def files_changed(self) -> int: ...
    @property
    def files_unchanged(self) -> int: ...
    @property
    def chunks_looked_up(self) -> int: ...
    @property
    def chunks_hit(self) -> int: ...
    @property
    def bytes_new(self) -> int:
        """Plain bytes of chunks that the pool did not have."""
    @property
    def bytes_transmitted(self) -> int:
        """The same as they went: compressed, but for `bytes_left`."""
    @property
    def bytes_left(self) -> int:
        """Those of `bytes_new` that the client sent as they are, for the media server to compress."""
    @property
    def bytes_stored(self) -> int: ...
    @property
    def findings(self) -> int: ...
    @property
    def bytes_total(self) -> int:
        """The known goal; 0 while it is not known."""
    @property
    def files_total(self) -> int: ...
    @property
    def stages(self) -> list[StageCounters]: ...

@final
class Finding:
    """A problem with one file, in plain words."""

    @property
    def path(self) -> bytes: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def severity(self) -> str:
        """``warning`` or ``error``."""

@final
class Entry:
    """One name in an image."""

    @property
    def name(self) -> bytes: ...
    @property
    def kind(self) -> str:
        """``file``, ``dir``, ``symlink``, ``fifo``, ``socket``, ``char`` or ``block``."""
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def user(self) -> str | None: ...
    @property
    def group(self) -> str | None: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def ctime_ns(self) -> int: ...
    @property
    def inode(self) -> int: ...
    @property
    def nlink(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def target(self) -> bytes | None: ...
    @property
    def rdev(self) -> tuple[int, int] | None: ...
    @property
    def xattrs(self) -> dict[bytes, bytes]: ...
    @property
    def chunks(self) -> int:
        """References that the entry itself holds; 1 for a long list."""

@final
class Image:
    """An image's manifest."""

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
    @property
    def number(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def paths(self) -> list[bytes]: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def finished_ns(self) -> int: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def status(self) -> str: ...
    @property
    def stats(self) -> dict[str, int]:
        """The totals of `Counters` when the backup ended, and ``errors``."""
    @property
    def findings(self) -> list[Finding]:
        """The first 1000."""
    @property
    def findings_total(self) -> int: ...
    @property
    def software(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]:
        """What whoever ordered the backup said of it."""
    @property
    def client_key(self) -> str | None:
        """The id of the client key that its files are sealed with; None: the pool can read them."""
    @property
    def has_sealed_names(self) -> bool:
        """Whether names and attributes of its files are sealed with that key, too."""

@final
class ClientKey:
    """A key of clients that the pool never sees. Prints nothing of itself but its id."""

    def __new__(cls, secret: bytes) -> ClientKey:
        """Make one of its 32 bytes."""
    @property
    def id(self) -> str:
        """32 hexadecimal digits, which tell nothing of the secret."""
    def seal_path(self, path: bytes) -> bytes:
        """Seal the names of an absolute path, as an image has it; parts that are sealed stay."""
    def open_path(self, path: bytes) -> bytes:
        """Open the names of an absolute path; parts that this key did not seal there stay."""

@final
class Run(Generic[_T]):
    """A verb at work in threads of the engine."""

    def counters(self) -> Counters:
        """The numbers so far; never waits for the work."""
    def cancel(self) -> None:
        """Ask the verb to stop, which it does promptly; `result` then raises `Cancelled`."""
    def wait(self, timeout_s: float) -> bool:
        """Wait without the interpreter's lock; True when the verb has ended."""
    def result(self) -> _T:
        """Wait for the result. Raises what the verb failed with."""
    def findings(self) -> list[Finding]:
        """The first 1000 so far."""
    def __class_getitem__(cls, _item: Any) -> type: ...

@final
class RestoreResult:
    """What a restore did."""

    @property
    def files(self) -> int: ...
    @property
    def dirs(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def findings(self) -> list[Finding]: ...
    @property
    def findings_total(self) -> int: ...
    @property
    def verified_files(self) -> int: ...

@final
class VerifyResult:
    """What a verification, or a check of a whole pool, looked at and found."""

    @property
    def images(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def packs(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def problems(self) -> list[Finding]: ...
    @property
    def problems_total(self) -> int: ...

@final
class GarbageResult:
    """What a garbage collection did, or would do."""

    @property
    def packs_before(self) -> int: ...
    @property
    def packs_deleted(self) -> int: ...
    @property
    def packs_rewritten(self) -> int: ...
    @property
    def bytes_freed(self) -> int: ...
    @property
    def bytes_live(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...
    @property
    def chunks_live(self) -> int: ...
    @property
    def chunks_total(self) -> int: ...
    @property
    def waiting_for(self) -> list[str]:
        """Jobs that began before the mark and still run: the space returns after them."""
    @property
    def dry_run(self) -> bool: ...

@final
class PoolStats:
    """How full a pool is, as its index knows it."""

    @property
    def packs(self) -> int: ...
    @property
    def pack_bytes(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def chunk_bytes(self) -> int:
        """Plain bytes of all chunks."""
    @property
    def index_segments(self) -> int: ...
    @property
    def index_bytes(self) -> int: ...
    @property
    def images(self) -> int: ...

@final
class ChangeBatch:
    """Rows of changes, as a database driver takes them."""

    @property
    def dirs(self) -> list[bytes]:
        """Paths of the directories that the rows name by place: ``b"/"``, ``b"/home/x"``."""
    @property
    def rows(self) -> list[tuple[int, bytes, int, int, int, int, int, int, int, int]]:
        """Place in `dirs`, name, change, kind, size, mtime_ns, mode, uid, gid, inode.

        Change: 1 added, 2 removed, 3 changed (the row has the new state). Kind: 0 file,
        1 directory, 2 symbolic link, 3 FIFO, 4 socket, 5 character device, 6 block device.
        """

@final
class Changes:
    """An iterator of batches; a thread of the engine is a batch or two ahead."""

    def __iter__(self) -> Iterator[ChangeBatch]: ...
    def __next__(self) -> ChangeBatch: ...

@final
class FileReader:
    """The bytes of a stored file, at any place. Thread-safe."""

    @property
    def size(self) -> int: ...
    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes from `offset` on; fewer than `length` only at the end."""
    def data_extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Where data is: offsets and lengths, in order. What is not told is a hole."""
    def serve_nbd(
        self,
        fd: int,
        begun: bytes,
        *,
        structured: bool,
        allocation: bool,
        troubled: Callable[[Exception], object],
    ) -> None:
        """Answer a client of an NBD server that is past negotiation, until it leaves.

        Returns as well when the socket is shut down. `begun` is what the client has said already;
        `troubled` is called, from any thread, with what could not be read: the client is told of an
        error. The engine takes a descriptor of its own, and has the socket block.
        """

@final
class DiskSource:
    """What a virtual disk is read by. Thread-safe."""

    @staticmethod
    def file(path: str) -> DiskSource:
        """Open a raw file or a block device. Its size is what it is now."""
    @staticmethod
    def nbd(
        fds: list[int], *, size: int, structured: bool, grain: int | None = None
    ) -> DiskSource:
        """Read over sockets that are connected to an NBD server and past its negotiation.

        The engine takes descriptors of its own; those given may be closed. Several requests are
        under way on each socket, and threads take turns at it. `structured` says whether
        structured replies were agreed on (extended headers must not be). No request crosses a
        multiple of `grain` bytes, if there is one. An error of the server, its death, and any
        answer that it may not give raise an error with the place.
        """
    @staticmethod
    def mapped(map: DiskMap, rest: DiskSource) -> DiskSource:
        """Read in files what lies there as it is, and everything else by `rest`.

        `close` closes `rest`. A file that became shorter meanwhile is an error with its name.
        """
    def close(self) -> None:
        """Let go of what it is read by; says goodbye to an NBD server."""
    @property
    def size(self) -> int: ...
    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes from `offset` on; fewer than `length` only at the end."""

@final
class DiskMap:
    """Where the ranges of a disk lie in files. Thread-safe; its files stay open while it is there."""

    @staticmethod
    def read(
        fd: int,
        *,
        size: int,
        files: list[str],
        layers: list[tuple[list[tuple[int | None, int]], int | None]],
    ) -> DiskMap:
        """Read what ``qemu-img map --output=json`` says, until it has no more to say.

        `layers` are the disk and those that it lies over, in the order of the map's ``depth``: the
        parts of each, one after the other, as the number of one of `files` (None for none) and how
        many bytes of the disk it covers; and how far content may lie beyond the end of its file
        (None for as far as it likes). A layer without parts is read in no file. Memory is bounded,
        whatever is said. Raises `Unsupported` for what is not understood or covers another disk.
        """
    @property
    def size(self) -> int: ...
    @property
    def truncated(self) -> tuple[Path, int, int] | None:
        """The first file that is too short: it, its size, and how far content goes."""
    def direct_bytes(self) -> int:
        """Bytes that lie in files as they are."""
    def ranges(self, most: int) -> list[tuple[int, int, int]]:
        """What is to be read, as `DiskInput` takes it.

        In at most so many ranges: where there are more, short holes are to be read.
        """

@final
class DiskSink:
    """What a virtual disk is written by. Thread-safe."""

    @staticmethod
    def file(path: str, size: int) -> DiskSink:
        """Make a sparse raw file, mode 0600, or write over a block device.

        Raises `Invalid` for a file that is there and not empty, and for a device that is smaller.
        """
    @staticmethod
    def image(
        path: str, image_format: str, *, size: int, begin: int = 0, keep_bytes: int = 0
    ) -> DiskSink:
        """Write a file that a restore makes, or one that it goes on with.

        Its format is ``raw``, ``qcow2``, ``vmdk``, ``vhdx`` or ``vdi``; of all but the first the size
        of the disk is rounded up to whole sectors.

        Where `begin` is 0 what it holds is thrown away; else a file that was not begun with the same
        data is an `IntegrityError`, when the restore begins. See `nbd` for `keep_bytes`.

        Raises `Invalid` for another format, and for what is no file; when the restore begins, also
        for a disk that is too large for its format.
        """
    @staticmethod
    def nbd(
        fds: list[int],
        *,
        size: int,
        structured: bool,
        can_zero: bool,
        fresh: bool,
        can_flush: bool = True,
        one_flush: bool = False,
        stale: list[tuple[int, int]] = ...,
        begin: int = 0,
        keep_bytes: int = 0,
    ) -> DiskSink:
        """Write over sockets, as `DiskSource.nbd` reads.

        `can_zero`, `can_flush` and `one_flush` are what the server said of itself
        (``WRITE_ZEROES``, ``FLUSH``, ``CAN_MULTI_CONN``). `fresh`: all of the disk reads as zero, so
        holes need no write, but for `stale` (offset, length), ascending.

        Nothing before `begin` is written. After each `keep_bytes` the disk is flushed while more is
        written, and `kept_until` grows; 0: at the end alone.
        """
    @property
    def kept_until(self) -> int:
        """All before this outlasts a loss of power."""
    @property
    def size(self) -> int: ...
    def close(self) -> None:
        """Let go of what it is written by; says goodbye to an NBD server."""

@final
class DiskInput:
    """A virtual disk that is to be backed up, and what of it is to be read."""

    def __new__(
        cls,
        name: str,
        size: int,
        ranges: list[tuple[int, int, int]],
        source: DiskSource,
        mtime_ns: int,
    ) -> DiskInput:
        """Describe a disk, whose file in the image is called `name`.

        `ranges` are (offset, length, kind), ascending, without gaps, from 0 to `size`. Kinds: 0
        nothing but zeroes; 1 to be read; 2 as in the parent. `source` has to have the whole disk:
        where a range of kind 2 ends inside a chunk of the parent, the rest of that is read.
        """
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...

@final
class TreeWriter:
    """Takes the directories of an image of names and attributes, without content. Thread-safe.

    Dropping it abandons the image. Memory: what stands for directories whose parent is not told
    yet, 100 bytes and a path each; a few directories on their way.
    """

    def add_dir(
        self,
        path: bytes,
        entries: list[
            tuple[bytes, int, int, int, int, int, int, int, int, bytes | None]
        ],
    ) -> None:
        """Tell a directory by its absolute path: all names in it, in any order.

        Entries are name, kind (as `ChangeBatch.rows` has it), mode, uid, gid, size, mtime_ns,
        ctime_ns, inode, target (of a symbolic link, not empty). Directories in it have to be told
        before it, with `add_dir` of their own, empty ones too; those that were not count as
        directories that could not be read. Files are all hole: they have their size, and no bytes.
        A name that no image can have is left out with a finding.

        Waits while enough is on its way. Raises what an earlier directory failed with, and
        `Invalid` after the end.
        """
    def finish(self) -> Image:
        """Make all durable, then the image visible. The directory ``/`` was told last.

        Raises `Invalid` where it was not, or where a directory is in none that was told after it.
        """
    def abandon(self) -> None:
        """End without an image, unless it was finished."""

@final
class Trigrams:
    """Names for an index by SQLite's FTS5 of their trigrams, with ``detail=none``. Thread-safe.

    Memory: 8 bytes for each trigram that a name has, until they are made a segment.
    """

    def __new__(cls) -> Trigrams: ...
    def add(self, names: Sequence[tuple[int, bytes, str | None]]) -> None:
        """Take names: id, name, and what it folds to; None where that is its ASCII in lower case.

        Ids are higher than all before them.
        """
    @property
    def is_full(self) -> bool:
        """Whether there is enough for a segment."""
    @property
    def tokens(self) -> int:
        """How many trigrams there were in all names, those of segments included."""
    def segment(self, number: int) -> TrigramSegment:
        """Make a segment of what was added since the last one."""

@final
class TrigramSegment:
    """What is stored of one segment."""

    @property
    def blocks(self) -> list[tuple[int, bytes]]:
        """Rows of the index's table ``…_data``."""
    @property
    def terms(self) -> list[tuple[int, bytes, int]]:
        """Rows of the index's table ``…_idx``."""
    @property
    def pages(self) -> int:
        """Pages, which are numbered from 1; 0 if there is no trigram."""

@final
class Mount:
    """A mounted image. It is unmounted when this goes."""

    def unmount(self) -> None: ...
    def wait(self, timeout_s: float) -> bool:
        """True once it is unmounted, by whomever."""
    def findings(self) -> list[Finding]:
        """What could not be read so far."""

@final
class Pool:
    """An open pool. Thread-safe; its verbs run beside each other."""

    @staticmethod
    def create(
        store: StoreSpec,
        pool_key: bytes,
        config: PoolConfig,
        created_ns: int,
        cache_dir: str | None = None,
        naming: bytes | None = None,
    ) -> Pool:
        """Make a pool in an empty store. Raises `PoolExists` where one is.

        `naming` is the `Pool.naming` of a pool to exchange images with; None for one of its own.
        """
    @staticmethod
    def open(store: StoreSpec, pool_key: bytes, cache_dir: str | None = None) -> Pool:
        """Open a pool. `cache_dir` keeps index segments of a remote store."""
    @staticmethod
    def peek(store: StoreSpec) -> bytes:
        """The pool's id, 16 bytes; needs no key. Raises `NotAPool` and `NewerFormat`."""
    @property
    def id(self) -> bytes: ...
    @property
    def naming(self) -> bytes:
        """What cuts and names chunks here: 128 bytes, as good as a secret; opens nothing."""
    @property
    def config(self) -> PoolConfig: ...
    def backup(
        self,
        *,
        paths: list[bytes],
        source: str,
        host: str,
        started_ns: int,
        exclude: list[str] = ...,
        one_file_system: bool = False,
        compression: int = 2,
        workers: int = 0,
        parent: str | None = None,
        read_all: bool = False,
        labels: dict[str, str] = ...,
        software: str = ...,
    ) -> Run[Image]:
        """Back up absolute paths; the image is committed when the run ends well.

        With `read_all` nothing is taken from an older image: every file is read.
        """
    def backup_machine(
        self,
        *,
        files: dict[str, bytes],
        disks: list[DiskInput],
        source: str,
        host: str,
        started_ns: int,
        compression: int = 2,
        workers: int = 0,
        parent: str | None = None,
        labels: dict[str, str] = ...,
        software: str = ...,
    ) -> Run[Image]:
        """Back up a virtual machine; the image is committed when the run ends well.

        In the image are `files`, by paths of one or two parts (``machine.json``,
        ``definitions/domain.xml``), and each disk as ``/disks/<name>``, a sparse file. A disk that
        can't be read ends the run with an error that names the disk and the place.

        `parent` is the image that ranges of kind 2 are as in. Raises `Invalid` for such a range
        where there is no such image, or no such disk in it, or beyond what that had; and for names
        and ranges that no image can have. Counters: `Counters.bytes_total` is what is to be read,
        `Counters.bytes_found` the sizes of the disks (at the end).
        """
    def restore(
        self,
        image: str,
        *,
        paths: list[bytes],
        to: bytes,
        overwrite: str = "never",
        strip_components: int = 0,
        verify: bool = False,
        workers: int = 0,
        client_key: ClientKey | None = None,
    ) -> Run[RestoreResult]:
        """Restore paths of an image (none: all) below the absolute directory `to`.

        Raises `ClientKeyNeeded` for an image that is sealed with another key than `client_key`, and
        `IntegrityError` for one that is not as that key sealed it.
        """
    def restore_disk(
        self,
        image: str,
        path: bytes,
        to: DiskSink,
        *,
        verify: bool = False,
        workers: int = 0,
        client_key: ClientKey | None = None,
    ) -> Run[RestoreResult]:
        """Write a file of an image (``/disks/vda``) as a disk, and flush that.

        All or nothing: whatever can't be read or written ends the run with an error. With `verify`
        what was written is read again and compared. Raises `Invalid` for a disk that is too small.
        """
    def write_index(
        self,
        *,
        source: str,
        host: str,
        started_ns: int,
        labels: dict[str, str] = ...,
        software: str = ...,
        parent: str | None = None,
    ) -> TreeWriter:
        """Begin an image whose directories are told one by one; `parent` is only noted in it."""
    def verify(self, images: list[str] | None, *, read_data: bool = False) -> Run[VerifyResult]:
        """Follow images (None: all) to their last chunk."""
    def check(self, *, read_data: bool = False) -> Run[VerifyResult]:
        """Look at every object of the pool, and whether they agree."""
    def collect_garbage(
        self, *, now_ns: int, dry_run: bool = False, lease_s: int = ..., compression: int = 2
    ) -> Run[GarbageResult]:
        """Give back the space of what no image names."""
    def rebuild_index(self, *, now_ns: int, lease_s: int = ...) -> Run[PoolStats]:
        """Make the index again from the footers of all packs."""
    def merge_index(self, *, now_ns: int) -> Run[PoolStats]:
        """Merge all index segments into one."""
    def stats(self) -> PoolStats: ...
    def receive(self, *, started_ns: int) -> Receiver:
        """Begin to receive a backup from a client."""
    def deliver(self, wanted: bytes, *, link_bytes_per_s: int | None = None) -> bytes:
        """Chunks that a client asked for by name, as a body of blocks; see `Link.read`.

        Raises `ChunkMissing` if one is not there, and `Invalid` for what is no such question.
        """
    @property
    def terms(self) -> bytes:
        """What a client needs to know of the pool to restore from it."""
    def manifest(self, id: str) -> bytes:
        """An image's manifest as a client takes it. Raises `ImageMissing`."""
    def replicate(
        self, image: str, target: Pool, *, started_ns: int, base: str | None = None
    ) -> Run[Image]:
        """Send an image to another pool with the same naming, under the same id.

        `base` is an image that the target has, too: what both have in common is not asked for.
        Raises `Invalid` where the pools don't share their naming. A second time it does nothing.
        """
    def go_on_above(self, number: int) -> None:
        """Have the images that are yet to come bear higher numbers than this one."""
    def images(self) -> list[Image]:
        """All images by number."""
    def image_ids(self) -> list[str]:
        """The ids of all images, in no order; reads no manifest."""
    def image(self, id: str) -> Image:
        """One image by its whole id."""
    def expire(self, id: str) -> None:
        """Take an image out of the pool; its space returns with the next collection."""
    def entry(self, image: str, path: bytes) -> Entry: ...
    def list_dir(self, image: str, path: bytes) -> list[Entry]: ...
    def changes(
        self, old: str | None, new: str | None, *, batch_rows: int = 50_000
    ) -> Changes:
        """What differs between two images; None is an empty tree."""
    def keep_blocks(self, bytes: int) -> None:
        """Keep so many bytes of what was read and decompressed, but not less than usual."""
    def open_file(self, image: str, path: bytes) -> FileReader: ...
    def mount(
        self,
        image: str,
        at: str,
        allow_other: bool = False,
        inside: tuple[str, InsideFiles] | None = None,
    ) -> Mount:
        """Mount an image, read only, at an existing directory.

        `inside` is an index image of this pool and who reads what it names: what is at its top is
        shown beside the image's own. It is asked by several threads.
        """

@final
class WholeTree:
    """What several images have, as one tree: of one backup, those of all its streams.

    What is sealed with one of `client_keys` is opened, names and data, and paths may be given plain
    or as the pool has them; `IntegrityError` where it is not as that key sealed it. Names that are
    sealed with another key are told as the pool has them. Of two that are no directories under one
    name the first image's is there. May be used from several threads.
    """

    def __new__(
        cls, images: list[tuple[Pool, str]], client_keys: list[ClientKey] = ...
    ) -> WholeTree: ...
    def entry(self, path: bytes) -> Entry: ...
    def list_dir(self, path: bytes) -> list[Entry]: ...
    def open_file(self, path: bytes) -> FileReader:
        """Raises `ClientKeyNeeded` if an image is sealed with a key that was not given."""
    def changes_since(self, old: WholeTree | None, *, batch_rows: int = 50_000) -> Changes:
        """What differs from an older one; None is an empty tree."""
    def mount(self, at: str, allow_other: bool = False) -> Mount:
        """Mount it, read only, at an existing directory.

        Raises `ClientKeyNeeded` if an image is sealed with a key that was not given.
        """

@final
class RemotePool:
    """A pool far away, as a client has it: it cuts, names and compresses, and opens nothing."""

    def __new__(
        cls,
        terms: bytes,
        link: Link,
        trees: str | None = None,
        client_key: ClientKey | None = None,
        sealed_names: bool = False,
        compress: str = "here",
    ) -> RemotePool:
        """Make one of what the media server said of the pool, and the way to it.

        With `client_key` everything that is backed up is sealed with it before it leaves this
        process, with `sealed_names` names and attributes too; only images that are sealed with it
        are restored.

        `trees` is a file, made where it is missing, that keeps the directories of one source: what
        the next backup of it compares with need not come from afar. Where it can't be had, or
        another process has it, everything works without.

        `compress` says where new data is compressed: ``here``; ``there``, by the media server before
        it stores it; or ``measured``, which is either, as more gets through. Say another than ``here``
        only to a media server that told that it does. The pool ends up the same.

        What `link` raises ends a verb, which raises the same.
        """
    @property
    def id(self) -> bytes:
        """Of the pool that the terms are of, 16 bytes."""
    def backup(
        self,
        *,
        paths: list[bytes],
        source: str,
        host: str,
        started_ns: int,
        exclude: list[str] = ...,
        one_file_system: bool = False,
        compression: int = 2,
        workers: int = 0,
        parent: bytes | None = None,
        read_all: bool = False,
        labels: dict[str, str] = ...,
        software: str = ...,
    ) -> Run[Image]:
        """As `Pool.backup`; `parent` is the manifest of the image to compare with.

        Whose image it becomes, its times and its labels, the media server says: see
        `Receiver.commit`.
        """
    def backup_machine(
        self,
        *,
        files: dict[str, bytes],
        disks: list[DiskInput],
        source: str,
        host: str,
        started_ns: int,
        compression: int = 2,
        workers: int = 0,
        parent: bytes | None = None,
        labels: dict[str, str] = ...,
        software: str = ...,
    ) -> Run[Image]:
        """As `Pool.backup_machine`; `parent` is the manifest of that image."""
    def restore(
        self,
        manifest: bytes,
        *,
        paths: list[bytes],
        to: bytes,
        overwrite: str = "never",
        strip_components: int = 0,
        verify: bool = False,
        workers: int = 0,
    ) -> Run[RestoreResult]:
        """As `Pool.restore`, of the image with this manifest; see `Pool.manifest`."""
    def restore_disk(
        self,
        manifest: bytes,
        path: bytes,
        to: DiskSink,
        *,
        verify: bool = False,
        workers: int = 0,
    ) -> Run[RestoreResult]:
        """As `Pool.restore_disk`, of the image with this manifest."""
    def open_file(self, manifest: bytes, path: bytes) -> FileReader:
        """As `Pool.open_file`, of the image with this manifest."""
    def replicate(self, pool: Pool, image: str, base: bytes | None = None) -> Run[Image]:
        """As `Pool.replicate`, to this pool. `base` is what `Receiver.vouch` gave."""

@final
class Receiver:
    """One backup that a media server receives from a client. Thread-safe.

    Dropping it abandons the backup.
    """

    @property
    def terms(self) -> bytes:
        """What the client needs to know of the pool."""
    def missing(self, names: bytes) -> bytes:
        """Which of these chunks the pool lacks; see `Link.missing`."""
    def take(self, body: bytes) -> None:
        """Take a body of blocks, which may have come before; waits while storing has enough to do.

        Raises `Invalid` for what is no body of blocks, `IntegrityError` where a chunk is not what
        its name says, and whatever storing failed with.
        """
    def commit(
        self,
        draft: bytes,
        *,
        source: str,
        host: str,
        labels: dict[str, str],
        finished_ns: int,
    ) -> Image:
        """Make all durable, then the image visible. Asked again, it tells the same."""
    def vouch(self, image: str) -> bytes | None:
        """Give the manifest of an image that the pool has; None where it is not to be relied on.

        What it has in common with an image that is to be adopted need not come: until this ends,
        all of it stays.
        """
    def adopt(self, manifest: bytes, *, image: str, source: str) -> Image:
        """Make all durable, then an image of another pool visible, as its manifest says it is.

        Raises `Invalid` for another image or source than these, and with the name of a chunk where
        the image is not whole. Asked again, or of an image that is there, it tells the same.
        """
    def abandon(self) -> None:
        """End without an image, unless one was committed; what came need not come again."""
    def counters(self) -> Counters: ...

@final
class PosixStore:
    """The engine's own store on a directory, as a `Store`. Thread-safe."""

    def __new__(cls, path: str) -> PosixStore:
        """Open a directory; it is made where it is missing."""
    @property
    def place(self) -> str:
        """The directory, for messages."""
    def get(self, key: str) -> bytes: ...
    def get_range(self, key: str, offset: int, length: int) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_if_absent(self, key: str, data: bytes) -> bool: ...
    def size(self, key: str) -> int | None: ...
    def list(self, prefix: str) -> Iterator[list[tuple[str, int]]]: ...
    def delete(self, key: str) -> None: ...

def error_codes() -> list[str]:
    """Every code that an engine error can carry."""

def client_key_of(manifest: bytes) -> str | None:
    """The id of the client key that an image is sealed with, by its manifest in plain bytes.

    Raises `IntegrityError` for what is no manifest.
    """

def wrap_key(
    key: bytes,
    secret: bytes,
    *,
    how: tuple[int, int, int] | bytes,
    salt: bytes,
    nonce: bytes,
    bound_to: bytes,
) -> bytes:
    """Seal a key of 32 bytes with AES-256-GCM under a key that is derived from a secret.

    Other threads run meanwhile; deriving takes this thread alone.

    Args:
        key: 32 bytes.
        secret: What the wrapping key is derived from.
        how: Memory in KiB, passes and lanes of Argon2id; or the info of HKDF-SHA-256.
        salt: Random bytes, at least 8 for Argon2id.
        nonce: 12 bytes, never used before with this secret and salt.
        bound_to: What the key is authenticated with.

    Returns:
        48 bytes.

    Raises `Invalid` for lengths and costs that are none, `InputOutput` where there is not as much
    memory.
    """

def unwrap_key(
    wrapped: bytes,
    secret: bytes,
    *,
    how: tuple[int, int, int] | bytes,
    salt: bytes,
    nonce: bytes,
    bound_to: bytes,
) -> bytes | None:
    """Open what `wrap_key` made; None if the secret, or anything else, is not the same.

    Raises what `wrap_key` raises.
    """

def keep_freed_memory() -> None:
    """Have the allocator of this process keep what is freed, up to some hundred MiB.

    For a process that ends with its work; one that stays would keep what its largest job took.
    """

def engine_version() -> str: ...
