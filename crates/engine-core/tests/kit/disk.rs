//! A disk in memory, and machines that have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine_core::backup::machine::{self, DiskInput, Range, Request, What};
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::disk::{DiskSink, DiskSource, Part, Patience, Piece};
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::reader::FileReader;
use holdfast_engine_core::tree::ChunkSource;
use holdfast_engine_core::tree::entry::{Entry, Extent};
use holdfast_engine_core::tree::walk;
use parking_lot::Mutex;

/// A disk in memory that counts what is read of it, and may have a bad place.
pub struct MemoryDisk {
    pub bytes: Vec<u8>,
    pub read: AtomicU64,
    pub bad: Option<u64>,
}

impl MemoryDisk {
    pub fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(MemoryDisk { bytes, read: AtomicU64::new(0), bad: None })
    }

    pub fn with_bad(bytes: Vec<u8>, bad: u64) -> Arc<Self> {
        Arc::new(MemoryDisk { bytes, read: AtomicU64::new(0), bad: Some(bad) })
    }
}

impl DiskSource for MemoryDisk {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        for piece in pieces {
            patience()?;
            let from = piece.offset as usize;
            let upto = from + piece.bytes.len();
            if self.bad.is_some_and(|bad| (piece.offset..upto as u64).contains(&bad)) {
                let bad = std::io::Error::from_raw_os_error(5);
                return Err(Error::io(format!("reading at byte {}", self.bad.unwrap()), bad));
            }
            piece.bytes.copy_from_slice(&self.bytes[from..upto]);
            self.read.fetch_add(piece.bytes.len() as u64, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A disk in memory that is written.
pub struct MemorySink {
    pub bytes: Mutex<Vec<u8>>,
    pub zeroed: AtomicU64,
    pub flushed: AtomicU64,
    stale: Vec<Extent>,
    bad: Option<u64>,
}

impl MemorySink {
    pub fn new(bytes: Vec<u8>, is_fresh: bool) -> Arc<Self> {
        let whole = Extent { offset: 0, length: bytes.len() as u64 };
        Self::with_stale(bytes, if is_fresh { vec![] } else { vec![whole] })
    }

    /// One that may read as something else than zero in places.
    pub fn with_stale(bytes: Vec<u8>, stale: Vec<Extent>) -> Arc<Self> {
        let (zeroed, flushed) = Default::default();
        Arc::new(MemorySink { bytes: Mutex::new(bytes), zeroed, flushed, stale, bad: None })
    }

    pub fn failing(bytes: Vec<u8>, bad: u64) -> Arc<Self> {
        let (zeroed, flushed) = Default::default();
        let bytes = Mutex::new(bytes);
        Arc::new(MemorySink { bytes, zeroed, flushed, stale: vec![], bad: Some(bad) })
    }
}

impl DiskSink for MemorySink {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn stale(&self) -> Vec<Extent> {
        self.stale.clone()
    }

    fn write(&self, parts: &[Part<'_>], _patience: Patience<'_>) -> Result<()> {
        for part in parts {
            let (from, upto) = (part.offset, part.offset + part.bytes.len() as u64);
            if let Some(bad) = self.bad.filter(|bad| (from..upto).contains(bad)) {
                let broken = std::io::Error::from_raw_os_error(5);
                return Err(Error::io(format!("writing at byte {bad}"), broken));
            }
            self.bytes.lock()[from as usize..upto as usize].copy_from_slice(part.bytes);
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64, _patience: Patience<'_>) -> Result<()> {
        self.bytes.lock()[offset as usize..(offset + length) as usize].fill(0);
        self.zeroed.fetch_add(length, Ordering::SeqCst);
        Ok(())
    }

    fn flush(&self, _patience: Patience<'_>) -> Result<()> {
        self.flushed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>], _patience: Patience<'_>) -> Result<()> {
        for piece in pieces {
            let from = piece.offset as usize;
            let upto = from + piece.bytes.len();
            piece.bytes.copy_from_slice(&self.bytes.lock()[from..upto]);
        }
        Ok(())
    }
}

pub fn range(offset: u64, length: u64, what: What) -> Range {
    Range { offset, length, what }
}

/// A disk `vda` of which these ranges are known.
pub fn disk(source: &Arc<MemoryDisk>, ranges: Vec<Range>) -> DiskInput {
    let source: Arc<dyn DiskSource> = Arc::clone(source) as _;
    DiskInput { name: "vda".into(), size: source.size(), ranges, source, mtime_ns: 7_000_000_001 }
}

/// A disk `vda` of which nothing is known.
pub fn unknown(source: &Arc<MemoryDisk>) -> DiskInput {
    disk(source, vec![range(0, source.size(), What::Data)])
}

pub fn machine(disks: Vec<DiskInput>, parent: Option<&Manifest>) -> Request {
    let files = [("machine.json", "{}"), ("definitions/domain.xml", "<domain/>")];
    let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    Request {
        files: files.into(),
        disks,
        source: "machine:test".into(),
        host: "test".into(),
        started_ns: super::now_ns(),
        level: 1,
        workers: 3,
        parent: parent.map(|image| image.id),
        labels: BTreeMap::from([("machine".to_owned(), "a-b".to_owned())]),
        software: "test".into(),
    }
}

/// Backs up the machine; its image and what was told.
pub fn back_up_telling(pool: &Pool, request: &Request) -> Result<(Manifest, Findings)> {
    let (counters, findings) = (Counters::default(), Findings::default());
    let image = machine::run(pool, request, &counters, &findings, &Cancel::new())?;
    Ok((image, findings))
}

pub fn back_up(pool: &Pool, request: &Request) -> Result<Manifest> {
    let (image, findings) = back_up_telling(pool, request)?;
    assert_eq!(findings.kept(), []);
    Ok(image)
}

pub fn file(pool: &Pool, image: &Manifest, path: &str) -> Entry {
    walk::find(pool, &image.root, path.as_bytes()).unwrap()
}

/// All bytes of a file of the image.
pub fn contents(pool: &Arc<Pool>, image: &Manifest, path: &str) -> Vec<u8> {
    let entry = file(pool, image, path);
    let reader = FileReader::open(Arc::clone(pool) as Arc<dyn ChunkSource>, &entry).unwrap();
    let mut bytes = vec![1; entry.size as usize];
    assert_eq!(reader.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}
