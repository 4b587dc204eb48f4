//! A store that fails on command, for tests: by operation, by key, at the n-th call.
//!
//! It passes everything on to the store inside, except what a [`Rule`] says. It never hands out
//! a local path, so that every read passes through it.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Store, Upload};
use crate::error::{Error, Result};

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    Get,
    GetRange,
    Size,
    List,
    Put,
    PutIfAbsent,
    Delete,
    /// `write` of an upload: its key is not known yet, and is "".
    Write,
    /// `finish` of an upload.
    Finish,
}

impl Operation {
    /// Whether it changes what is stored.
    pub fn changes(self) -> bool {
        use Operation::{Delete, Finish, Put, PutIfAbsent, Write};
        matches!(self, Put | PutIfAbsent | Delete | Write | Finish)
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Fails with an input/output error; nothing is done.
    Io,
    /// Fails for want of space; nothing is done.
    NoSpace,
    /// Is done, but the answer is an error: the line broke behind the request.
    AnswerLost,
    /// At most so many bytes are read or written, and all seems well.
    Short(usize),
    /// A bit of the byte at this offset of the object is flipped on its way, and all seems well.
    Flip { offset: u64, bit: u8 },
    /// Waits until the gate opens, then works.
    Hold(Gate),
}

/// Holds whoever comes through until it is opened; tells that someone came.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    inner: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Debug, Default)]
struct GateState {
    reached: u64,
    open: bool,
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns once somebody stands at the gate, or it was opened; whether somebody came.
    pub fn wait_until_reached(&self) -> bool {
        let (state, changed) = &*self.inner;
        let mut state = state.lock();
        changed.wait_while(&mut state, |state| state.reached == 0 && !state.open);
        state.reached > 0
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        let (state, changed) = &*self.inner;
        state.lock().open = true;
        changed.notify_all();
    }

    fn pass(&self) {
        let (state, changed) = &*self.inner;
        let mut state = state.lock();
        state.reached += 1;
        changed.notify_all();
        changed.wait_while(&mut state, |state| !state.open);
    }
}

/// Which calls suffer which fault.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    operation: Option<Operation>,
    prefix: String,
    skip: u64,
    times: u64,
}

impl Rule {
    /// Every call suffers `fault`, until narrowed.
    pub fn new(fault: Fault) -> Self {
        Rule { fault, operation: None, prefix: String::new(), skip: 0, times: u64::MAX }
    }

    /// Only calls of this operation.
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only calls whose key, or list prefix, begins so.
    pub fn under(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// Spares the first `count` of them.
    pub fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Strikes `count` times at most.
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// The fault for this call, if it is one that the rule is for.
    fn strike(&mut self, operation: Operation, key: &str) -> Option<Fault> {
        let concerns = self.operation.is_none_or(|only| only == operation);
        if !concerns || !key.starts_with(&self.prefix) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times = self.times.checked_sub(1)?;
        Some(self.fault.clone())
    }
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    calls: Vec<(Operation, String)>,
    changes: u64,
    stop_after: Option<u64>,
}

/// See the module.
pub struct FaultyStore<S> {
    inner: S,
    script: Mutex<Script>,
}

impl<S: Store> FaultyStore<S> {
    /// Faultless until a rule is added.
    pub fn new(inner: S) -> Self {
        FaultyStore { inner, script: Mutex::default() }
    }

    /// The first rule that strikes decides a call.
    pub fn add(&self, rule: Rule) {
        self.script.lock().rules.push(rule);
    }

    /// After `count` more changing calls every call fails, reading ones too.
    pub fn stop_after(&self, count: u64) {
        let mut script = self.script.lock();
        script.stop_after = Some(script.changes.saturating_add(count));
    }

    /// Drops all rules, and the stop.
    pub fn mend(&self) {
        let mut script = self.script.lock();
        script.rules.clear();
        script.stop_after = None;
    }

    /// All calls so far, also those that failed.
    pub fn calls(&self) -> Vec<(Operation, String)> {
        self.script.lock().calls.clone()
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The fault that this call must still apply itself; the others are dealt with here.
    fn meet(&self, operation: Operation, key: &str) -> Result<Option<Fault>> {
        let fault = {
            let mut script = self.script.lock();
            script.calls.push((operation, key.to_owned()));
            if script.stop_after.is_some_and(|after| script.changes >= after) {
                return Err(failed(operation, key, std::io::Error::other("the store has stopped")));
            }
            script.changes += u64::from(operation.changes());
            script.rules.iter_mut().find_map(|rule| rule.strike(operation, key))
        };
        match fault {
            Some(Fault::Io) => Err(broken(operation, key)),
            Some(Fault::NoSpace) => {
                Err(failed(operation, key, std::io::ErrorKind::StorageFull.into()))
            }
            Some(Fault::Hold(gate)) => {
                gate.pass();
                Ok(None)
            }
            other => Ok(other),
        }
    }
}

fn failed(operation: Operation, key: &str, error: std::io::Error) -> Error {
    Error::io(format!("{operation:?} of '{key}'"), error)
}

fn broken(operation: Operation, key: &str) -> Error {
    failed(operation, key, std::io::Error::other("a scripted fault"))
}

/// The answer of a call that was done, unless its answer is lost.
fn answer<T>(fault: Option<Fault>, operation: Operation, key: &str, done: T) -> Result<T> {
    match fault {
        Some(Fault::AnswerLost) => Err(broken(operation, key)),
        _ => Ok(done),
    }
}

/// Bytes from `start` of an object, as they come through a fault.
fn spoil(fault: Option<&Fault>, start: u64, data: &mut Vec<u8>) {
    match fault {
        Some(Fault::Short(keep)) => data.truncate(*keep),
        Some(Fault::Flip { offset, bit }) => {
            let at = offset.checked_sub(start).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = at.and_then(|at| data.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
        _ => {}
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn get(&self, key: &str) -> Result<Vec<u8>> {
        let fault = self.meet(Operation::Get, key)?;
        let mut data = self.inner.get(key)?;
        spoil(fault.as_ref(), 0, &mut data);
        answer(fault, Operation::Get, key, data)
    }

    fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let fault = self.meet(Operation::GetRange, key)?;
        let mut data = self.inner.get_range(key, offset, length)?;
        spoil(fault.as_ref(), offset, &mut data);
        answer(fault, Operation::GetRange, key, data)
    }

    fn put(&self, key: &str, data: &[u8]) -> Result<()> {
        let fault = self.meet(Operation::Put, key)?;
        let mut data = data.to_vec();
        spoil(fault.as_ref(), 0, &mut data);
        self.inner.put(key, &data)?;
        answer(fault, Operation::Put, key, ())
    }

    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<bool> {
        let fault = self.meet(Operation::PutIfAbsent, key)?;
        let mut data = data.to_vec();
        spoil(fault.as_ref(), 0, &mut data);
        let won = self.inner.put_if_absent(key, &data)?;
        answer(fault, Operation::PutIfAbsent, key, won)
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        let fault = self.meet(Operation::Size, key)?;
        let size = self.inner.size(key)?;
        answer(fault, Operation::Size, key, size)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()> {
        let fault = self.meet(Operation::List, prefix)?;
        self.inner.list(prefix, visit)?;
        answer(fault, Operation::List, prefix, ())
    }

    fn delete(&self, key: &str) -> Result<()> {
        let fault = self.meet(Operation::Delete, key)?;
        self.inner.delete(key)?;
        answer(fault, Operation::Delete, key, ())
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>> {
        Ok(Box::new(FaultyUpload { store: self, inner: self.inner.upload()?, written: 0 }))
    }
}

struct FaultyUpload<'a, S> {
    store: &'a FaultyStore<S>,
    inner: Box<dyn Upload + 'a>,
    written: u64,
}

impl<S: Store> Upload for FaultyUpload<'_, S> {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let fault = self.store.meet(Operation::Write, "")?;
        let mut spoiled = data.to_vec();
        spoil(fault.as_ref(), self.written, &mut spoiled);
        self.written += data.len() as u64;
        self.inner.write(&spoiled)?;
        answer(fault, Operation::Write, "", ())
    }

    fn finish(self: Box<Self>, key: &str) -> Result<()> {
        let fault = self.store.meet(Operation::Finish, key)?;
        self.inner.finish(key)?;
        answer(fault, Operation::Finish, key, ())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::memory::MemoryStore;

    fn store() -> FaultyStore<MemoryStore> {
        let store = FaultyStore::new(MemoryStore::new());
        store.put("packs/a", &[0; 10]).unwrap();
        store.put("index/a", &[0; 10]).unwrap();
        store
    }

    #[test]
    fn a_rule_strikes_the_calls_it_names_and_no_others() {
        let store = store();
        store.add(Rule::new(Fault::Io).on(Operation::Get).under("packs/").after(1).times(2));
        let failed: Vec<bool> = (0..5).map(|_| store.get("packs/a").is_err()).collect();
        assert_eq!(failed, [false, true, true, false, false]);
        store.add(Rule::new(Fault::NoSpace).on(Operation::Put));
        assert!(matches!(store.put("packs/b", b"x"), Err(Error::NoSpace { .. })));
        assert_eq!(store.inner().size("packs/b").unwrap(), None);
        assert!(store.get("index/a").is_ok());
        store.mend();
        store.put("packs/b", b"x").unwrap();
    }

    #[test]
    fn bytes_are_spoiled_at_their_place_whichever_way_they_are_read() {
        let store = store();
        store.add(Rule::new(Fault::Flip { offset: 7, bit: 3 }).under("packs/"));
        assert_eq!(store.get("packs/a").unwrap()[6..9], [0, 8, 0]);
        assert_eq!(store.get_range("packs/a", 5, 4).unwrap(), [0, 0, 8, 0]);
        assert_eq!(store.get_range("packs/a", 8, 2).unwrap(), [0, 0]);
        store.add(Rule::new(Fault::Short(3)).under("index/"));
        assert_eq!(store.get_range("index/a", 2, 5).unwrap().len(), 3);
    }

    #[test]
    fn an_upload_is_spoiled_where_the_object_would_be() {
        let store = store();
        store.add(Rule::new(Fault::Flip { offset: 5, bit: 0 }).on(Operation::Write));
        let mut upload = store.upload().unwrap();
        upload.write(&[0; 4]).unwrap();
        upload.write(&[0; 4]).unwrap();
        upload.finish("packs/b").unwrap();
        assert_eq!(store.get("packs/b").unwrap(), [0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_lost_answer_is_an_error_for_work_that_was_done() {
        let store = store();
        store.add(Rule::new(Fault::AnswerLost).times(1));
        assert!(store.put_if_absent("jobs/a", b"x").is_err());
        assert!(!store.put_if_absent("jobs/a", b"x").unwrap());
    }

    #[test]
    fn a_gate_holds_a_call_until_it_opens() {
        let store = store();
        let gate = Gate::new();
        store.add(Rule::new(Fault::Hold(gate.clone())).on(Operation::Delete));
        std::thread::scope(|scope| {
            let held = scope.spawn(|| store.delete("packs/a"));
            gate.wait_until_reached();
            assert!(store.size("packs/a").unwrap().is_some());
            gate.open();
            held.join().unwrap().unwrap();
        });
        assert_eq!(store.size("packs/a").unwrap(), None);
    }

    #[test]
    fn a_stopped_store_does_nothing_more_until_mended() {
        let store = store();
        store.stop_after(1);
        store.delete("index/a").unwrap();
        assert!(store.get("packs/a").is_err() && store.put("packs/b", b"").is_err());
        store.mend();
        assert_eq!(store.get("packs/a").unwrap(), [0; 10]);
        let last = store.calls().pop().unwrap();
        assert_eq!(last, (Operation::Get, "packs/a".into()));
    }
}
