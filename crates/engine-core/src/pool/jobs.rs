//! Records of running jobs, `jobs/<id>`: what a garbage collection waits for. See
//! `docs/formats/jobs-and-marks.md`.
//!
//! A job's record is put once, before the job reads marks and index, and never written again; so
//! deleting it is final, and a job that was declared dead sees that before it commits. Signs of
//! life go to a record of their own, which may be rewritten. Correctness needs no clock: a clock
//! only decides when an unreachable job counts as dead.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use parking_lot::Mutex;

use crate::cbor::{self, Parsed, Reader};
use crate::error::{Error, Result};
use crate::ids::Id;
use crate::keys::PoolKeys;
use crate::pool::process::Process;
use crate::sealed::{ObjectType, open_object, seal_object};
use crate::store::Store;

/// The prefix of every record's key.
pub const KEYS: &str = "jobs/";
const VERSION: u64 = 1;
/// A job that gave no sign of life for so long counts as dead.
pub const DEFAULT_LEASE_S: u64 = 24 * 60 * 60;

/// How often a running job gives a sign of life; a lease is many times as long.
const SIGN_EVERY: Duration = Duration::from_secs(600);

/// Jobs that run in this process: for them no lease is asked.
static RUNNING: LazyLock<Mutex<HashSet<Id>>> = LazyLock::new(Mutex::default);

pub fn key(id: &Id) -> String {
    format!("{KEYS}{id}")
}

/// What a job does; a collection waits for all but other collections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    Backup,
    /// Merges or completes the index.
    Index,
    /// Collects garbage or rebuilds the index: holds a mark as well, which excludes others.
    Collect,
}

impl JobKind {
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Backup => "backup",
            JobKind::Index => "index",
            JobKind::Collect => "collect",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [JobKind::Backup, JobKind::Index, JobKind::Collect]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// One object under `jobs/`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// The job that this record is of, or is a sign of life of.
    job: Id,
    kind: JobKind,
    process: Process,
    began_ns: i64,
    seen_ns: i64,
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        cbor::write_array(&mut out, 6);
        cbor::write_uint(&mut out, VERSION);
        cbor::write_bytes(&mut out, &self.job.0);
        cbor::write_text(&mut out, self.kind.as_str());
        self.process.write(&mut out);
        cbor::write_int(&mut out, self.began_ns);
        cbor::write_int(&mut out, self.seen_ns);
        out
    }

    fn decode(key: &str, bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).map_err(|malformed| malformed.within(format!("object '{key}'")))
    }

    fn parse(bytes: &[u8]) -> Parsed<Self> {
        let mut reader = Reader::new(bytes);
        reader.tuple(6)?;
        if reader.uint()? != VERSION {
            return reader.fail("an unknown version");
        }
        let job = Id(reader.fixed()?);
        let Some(kind) = JobKind::parse(reader.text()?) else {
            return reader.fail("an unknown kind of job");
        };
        let process = Process::read(&mut reader)?;
        let record = Record { job, kind, process, began_ns: reader.int()?, seen_ns: reader.int()? };
        reader.end()?;
        Ok(record)
    }

    fn put(&self, store: &dyn Store, keys: &PoolKeys, id: &Id) -> Result<()> {
        let key = key(id);
        store.put(&key, &seal_object(keys, ObjectType::Job, &key, &self.encode())?)
    }
}

/// A running job of this process. Dropping it withdraws its record as well as it can.
pub struct Job {
    store: Arc<dyn Store>,
    keys: PoolKeys,
    record: Record,
    /// Where signs of life go.
    signs: Id,
    signed: Mutex<bool>,
}

impl Job {
    /// Announces the job. Read marks and index only afterwards.
    pub fn begin(
        store: Arc<dyn Store>,
        keys: &PoolKeys,
        kind: JobKind,
        now_ns: i64,
    ) -> Result<Self> {
        let job = Id::random()?;
        let process = Process::current();
        let record = Record { job, kind, process, began_ns: now_ns, seen_ns: now_ns };
        let signs = Id::random()?;
        RUNNING.lock().insert(job);
        let job = Job { store, keys: keys.clone(), record, signs, signed: Mutex::new(false) };
        job.record.put(&*job.store, &job.keys, &job.id())?;
        Ok(job)
    }

    pub fn id(&self) -> Id {
        self.record.job
    }

    /// Gives a sign of life; wanted several times in each lease.
    pub fn renew(&self, now_ns: i64) -> Result<()> {
        let mut signed = self.signed.lock();
        *signed = true;
        let record = Record { seen_ns: now_ns, ..self.record.clone() };
        record.put(&*self.store, &self.keys, &self.signs)
    }

    /// Does the work while a thread of its own gives signs of life with the time from `now_ns`.
    /// One that cannot be given is tried again at the next turn.
    pub fn keep_alive<T>(&self, now_ns: impl Fn() -> i64 + Sync, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let (working, ended) = bounded::<()>(0);
            let now_ns = &now_ns;
            scope.spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(SIGN_EVERY) {
                    let _ = self.renew(now_ns());
                }
            });
            let outcome = work();
            drop(working);
            outcome
        })
    }

    /// `Fenced` once a collection has declared the job dead. To be asked *after* what commits the
    /// job was put; what was put must then be deleted again.
    pub fn check(&self) -> Result<()> {
        match self.store.size(&key(&self.id()))? {
            Some(_) => Ok(()),
            None => Err(Error::Fenced { job: self.id().to_string() }),
        }
    }

    /// Withdraws the record: what the job did is committed, or never will be.
    pub fn end(self) -> Result<()> {
        self.withdraw()
    }

    /// Ends a job that failed and may have stored packs that no segment lists: leaves a record that
    /// everybody takes for dead, so that the next backup looks for them.
    pub fn leave(self) {
        // Under an id of its own: to write this job's record again could undo a burial.
        let left = Id::random().and_then(|job| {
            let record =
                Record { job, began_ns: i64::MIN, seen_ns: i64::MIN, ..self.record.clone() };
            record.put(&*self.store, &self.keys, &job)
        });
        if left.is_err() {
            // The job's own record has to do. It is dead once this process is gone, or here.
            RUNNING.lock().remove(&self.id());
        }
    }

    fn withdraw(&self) -> Result<()> {
        if std::mem::take(&mut *self.signed.lock()) {
            self.store.delete(&key(&self.signs))?;
        }
        if RUNNING.lock().remove(&self.id()) {
            self.store.delete(&key(&self.id()))?;
        }
        Ok(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The record of a job that could not withdraw it is found dead by the next collection.
        let _ = self.withdraw();
    }
}

/// A job as others see it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: Id,
    pub kind: JobKind,
    pub process: Process,
    pub began_ns: i64,
    /// The last sign of life.
    pub seen_ns: i64,
    signs: Vec<Id>,
}

impl Seen {
    /// Whether the job has certainly ended, or has given no sign of life for `lease_s`.
    pub fn is_dead(&self, now_ns: i64, lease_s: u64) -> bool {
        if RUNNING.lock().contains(&self.id) {
            return false;
        }
        let silent = u64::try_from(now_ns.saturating_sub(self.seen_ns)).unwrap_or(0);
        self.process.is_current()
            || self.process.is_gone()
            || silent > lease_s.saturating_mul(1_000_000_000)
    }

    /// The job in words.
    pub fn describe(&self) -> String {
        let Process { host, number, .. } = &self.process;
        format!("{} job {} (process {number} on {host})", self.kind.as_str(), self.id)
    }

    /// Declares the job dead: it can commit nothing from now on. List manifests afterwards.
    pub fn bury(&self, store: &dyn Store) -> Result<()> {
        store.delete(&key(&self.id))?;
        for sign in &self.signs {
            store.delete(&key(sign))?;
        }
        Ok(())
    }
}

/// All announced jobs, and signs of life whose job is gone (they are removed). A record that
/// cannot be read is an error: to go on as if it were not there could lose data.
pub fn list(store: &dyn Store, keys: &PoolKeys) -> Result<Vec<Seen>> {
    let mut ids = Vec::new();
    store.list(KEYS, &mut |key, _size| {
        ids.extend(key.strip_prefix(KEYS).and_then(Id::parse));
        Ok(())
    })?;
    let mut jobs: Vec<Seen> = Vec::new();
    let mut signs: HashMap<Id, Vec<(Id, i64)>> = HashMap::new();
    for id in ids {
        let key = key(&id);
        let bytes = match store.get(&key) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error),
        };
        let record = Record::decode(&key, &open_object(keys, ObjectType::Job, &key, &bytes)?)?;
        if record.job == id {
            let Record { kind, process, began_ns, seen_ns, .. } = record;
            jobs.push(Seen { id, kind, process, began_ns, seen_ns, signs: Vec::new() });
        } else {
            signs.entry(record.job).or_default().push((id, record.seen_ns));
        }
    }
    for job in &mut jobs {
        for (id, seen_ns) in signs.remove(&job.id).unwrap_or_default() {
            job.seen_ns = job.seen_ns.max(seen_ns);
            job.signs.push(id);
        }
    }
    for id in signs.into_values().flatten().map(|(id, _)| id) {
        store.delete(&key(&id))?;
    }
    Ok(jobs)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::memory::MemoryStore;

    /// The record of a backup by another process, last seen when it began.
    pub(crate) fn put_record(
        store: &dyn Store,
        keys: &PoolKeys,
        process: Process,
        began_ns: i64,
    ) -> Id {
        let job = Id::random().unwrap();
        let record = Record { job, kind: JobKind::Backup, process, began_ns, seen_ns: began_ns };
        record.put(store, keys, &job).unwrap();
        job
    }

    const SECOND: i64 = 1_000_000_000;

    fn pool() -> (Arc<MemoryStore>, PoolKeys) {
        (Arc::new(MemoryStore::new()), PoolKeys::derive(&[1; 32]))
    }

    fn begin(store: &Arc<MemoryStore>, keys: &PoolKeys) -> Job {
        Job::begin(store.clone(), keys, JobKind::Backup, 5 * SECOND).unwrap()
    }

    #[test]
    fn a_job_is_listed_while_it_runs_and_leaves_nothing() {
        let (store, keys) = pool();
        let job = begin(&store, &keys);
        job.renew(9 * SECOND).unwrap();
        let seen = list(&*store, &keys).unwrap();
        assert_eq!((seen.len(), seen[0].id), (1, job.id()));
        assert_eq!((seen[0].began_ns, seen[0].seen_ns), (5 * SECOND, 9 * SECOND));
        assert!(!seen[0].is_dead(i64::MAX, 1), "it runs in this process");
        assert!(seen[0].describe().contains("backup job"));
        job.check().unwrap();
        job.end().unwrap();
        assert!(list(&*store, &keys).unwrap().is_empty());
        drop(begin(&store, &keys));
        assert!(crate::store::list_sorted(&*store, KEYS).unwrap().is_empty());
    }

    #[test]
    fn a_job_that_failed_is_dead_to_everybody_at_once() {
        let (store, keys) = pool();
        let failed = begin(&store, &keys);
        let id = failed.id();
        failed.leave();
        let seen = list(&*store, &keys).unwrap();
        assert_eq!(seen.len(), 1);
        assert_ne!(seen[0].id, id);
        let elsewhere = Process { boot: "elsewhere".into(), ..Process::current() };
        assert!(Seen { process: elsewhere, ..seen[0].clone() }.is_dead(0, DEFAULT_LEASE_S));
        seen[0].bury(&*store).unwrap();
        assert!(crate::store::list_sorted(&*store, KEYS).unwrap().is_empty());
    }

    #[test]
    fn a_buried_job_is_fenced_however_often_it_gives_signs_of_life() {
        let (store, keys) = pool();
        let job = begin(&store, &keys);
        job.renew(6 * SECOND).unwrap();
        list(&*store, &keys).unwrap()[0].bury(&*store).unwrap();
        job.renew(7 * SECOND).unwrap();
        assert_eq!(job.check().unwrap_err().code(), "fenced");
        assert!(list(&*store, &keys).unwrap().is_empty());
        assert!(crate::store::list_sorted(&*store, KEYS).unwrap().is_empty());
    }

    #[test]
    fn a_job_of_another_machine_dies_with_its_lease_and_signs_of_life_extend_it() {
        let (store, keys) = pool();
        let process = Process { boot: "elsewhere".into(), ..Process::current() };
        let job = Id([7; 16]);
        let began = Record { job, kind: JobKind::Backup, process, began_ns: 0, seen_ns: 0 };
        began.put(&*store, &keys, &job).unwrap();
        let seen = || list(&*store, &keys).unwrap().remove(0);
        assert!(!seen().is_dead(60 * SECOND, 60));
        assert!(seen().is_dead(61 * SECOND, 60));
        let sign = Record { seen_ns: 30 * SECOND, ..began };
        sign.put(&*store, &keys, &Id([8; 16])).unwrap();
        assert!(!seen().is_dead(61 * SECOND, 60));
        assert!(!seen().is_dead(i64::MIN, 60), "a clock that jumped back kills nobody");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error() {
        let (store, keys) = pool();
        let job = begin(&store, &keys);
        store.put(&key(&job.id()), b"rubbish").unwrap();
        assert_eq!(list(&*store, &keys).unwrap_err().code(), "integrity");
    }
}
