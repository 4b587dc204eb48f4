//! A verb at work in the engine's threads, as Python holds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::{Counters as CoreCounters, Stage};
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::finding::Findings;
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::errors::to_python;
use crate::types::{Counters, Finding};

/// How often a waiting interpreter looks for signals.
const SIGNALS: Duration = Duration::from_millis(50);

/// What a verb may use of its run.
pub struct Context {
    pub counters: CoreCounters,
    pub findings: Arc<Findings>,
    pub cancel: Cancel,
}

/// What a verb ends with: its result as a Python object, made with the lock held.
pub type Outcome = Box<dyn Fn(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

struct Shared {
    context: Context,
    ended: Mutex<Option<Result<Outcome>>>,
    ready: Condvar,
}

/// A verb that runs. Dropping it does not stop it; `cancel` does.
#[pyclass(frozen)]
pub struct Run {
    shared: Arc<Shared>,
    stages: &'static [Stage],
}

impl Run {
    /// Starts `work` in a thread of its own.
    pub fn start(
        stages: &'static [Stage],
        work: impl FnOnce(&Context) -> Result<Outcome> + Send + 'static,
    ) -> PyResult<Self> {
        let shared = Arc::new(Shared {
            context: Context {
                counters: CoreCounters::default(),
                findings: Arc::default(),
                cancel: Cancel::new(),
            },
            ended: Mutex::new(None),
            ready: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("holdfast-verb".into()).spawn(move || {
            let caught =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&own.context)));
            let outcome = caught
                .unwrap_or_else(|_| Err(Error::Invalid("the engine failed unexpectedly".into())));
            *own.ended.lock() = Some(outcome);
            own.ready.notify_all();
        })?;
        Ok(Run { shared, stages })
    }

    fn wait_until(&self, deadline: Instant) -> bool {
        let mut ended = self.shared.ended.lock();
        while ended.is_none() {
            if self.shared.ready.wait_until(&mut ended, deadline).timed_out() {
                return ended.is_some();
            }
        }
        true
    }
}

#[pymethods]
impl Run {
    /// ``Run[T]`` in annotations.
    #[classmethod]
    fn __class_getitem__<'py>(
        kind: &Bound<'py, PyType>,
        _item: &Bound<'py, PyAny>,
    ) -> Bound<'py, PyType> {
        kind.clone()
    }

    fn counters(&self) -> Counters {
        let mut seen = self.shared.context.counters.snapshot();
        seen.findings = self.shared.context.findings.total();
        Counters::new(&seen, self.stages)
    }

    fn cancel(&self) {
        self.shared.context.cancel.cancel();
    }

    /// True when the verb has ended. Raises what a signal handler raises.
    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        let timeout = Duration::try_from_secs_f64(timeout_s).unwrap_or(Duration::ZERO);
        let deadline = Instant::now() + timeout.min(Duration::from_secs(1 << 30));
        loop {
            let step = deadline.min(Instant::now() + SIGNALS);
            if py.detach(|| self.wait_until(step)) {
                return Ok(true);
            }
            py.check_signals()?;
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// The verb's result, once it has ended; raises its error.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        while !self.wait(py, 3600.0)? {}
        match &*self.shared.ended.lock() {
            Some(Ok(outcome)) => outcome(py),
            Some(Err(error)) => Err(to_python(error)),
            None => Err(to_python(&Error::Invalid("the verb has not ended".into()))),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.shared.context.findings.kept().into_iter().map(Finding::from).collect()
    }
}
