// SPDX-License-Identifier: GPL-2.0

//! Stands in for `kernel::workqueue`: a thread for each work item, as long as it is queued.

#![cfg_attr(feature = "native", allow(dead_code, unused_imports))]

use crate::{alloc::NumaNode, sync::Arc};
use loom::{sync::Mutex, thread};
use std::cell::Cell;

loom::thread_local! {
    static RUNS: Cell<usize> = Cell::new(0);
    static STUCK: Cell<usize> = Cell::new(0);
}

/// How many times this thread's work item has begun to run.
pub fn runs() -> usize {
    RUNS.with(|nr| nr.get())
}

/// How many work items this thread has put on a queue that is stuck.
pub fn stuck() -> usize {
    STUCK.with(|nr| nr.get())
}

pub trait WorkItem {
    type Pointer;

    fn run(this: Self::Pointer);
}

pub trait HasWork: Sized {
    fn work(&self) -> &Work<Self>;
}

/// As in C, an item that is queued is not queued again, and one that runs does not run a second
/// time meanwhile.
struct State<T> {
    queued: Option<Arc<T>>,
    running: bool,
}

pub struct Work<T>(std::sync::Arc<Mutex<State<T>>>);

impl<T> Work<T> {
    #[expect(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(std::sync::Arc::new(Mutex::new(State {
            queued: None,
            running: false,
        })))
    }
}

#[macro_export]
macro_rules! new_work {
    ($name:literal) => {
        $crate::workqueue::Work::new()
    };
}

#[macro_export]
macro_rules! impl_has_work {
    (impl{$($generics:tt)*} HasWork<Self> for $t:ty { self.$field:ident }) => {
        impl<$($generics)*> $crate::workqueue::HasWork for $t {
            fn work(&self) -> &$crate::workqueue::Work<Self> {
                &self.$field
            }
        }
    };
}

pub enum Queue {
    Threads,
    /// There was no memory for a worker, and there never is.
    Stuck,
}

#[cfg(feature = "native")]
static NEXT: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());

#[cfg(feature = "native")]
impl Queue {
    pub fn enqueue_on_node<T>(&self, _: NumaNode, item: Arc<T>) -> Result<(), Arc<T>>
    where
        T: HasWork + WorkItem<Pointer = Arc<T>> + Send + Sync + 'static,
    {
        NEXT.lock().unwrap().push(Box::new(|| T::run(item)));
        Ok(())
    }

    /// Runs the next work item in this thread; whether there was one.
    pub fn run_next(&self) -> bool {
        let next = NEXT.lock().unwrap().pop();

        next.map(|run| run()).is_some()
    }
}

#[cfg(not(feature = "native"))]
impl Queue {
    pub fn enqueue_on_node<T>(&self, _: NumaNode, item: Arc<T>) -> Result<(), Arc<T>>
    where
        T: HasWork + WorkItem<Pointer = Arc<T>> + Send + Sync + 'static,
    {
        if matches!(self, Queue::Stuck) {
            STUCK.with(|nr| nr.set(nr.get() + 1));
            return Ok(());
        }

        let work = item.work().0.clone();
        let mut state = work.lock().unwrap();

        if state.queued.is_some() {
            return Err(item);
        }
        state.queued = Some(item);
        if !state.running {
            state.running = true;

            let work = work.clone();

            thread::spawn(move || loop {
                let next = {
                    let mut state = work.lock().unwrap();
                    let next = state.queued.take();

                    state.running = next.is_some();
                    next
                };
                match next {
                    Some(item) => {
                        RUNS.with(|nr| nr.set(nr.get() + 1));
                        T::run(item);
                    }
                    None => break,
                }
            });
        }
        Ok(())
    }
}
