// SPDX-License-Identifier: GPL-2.0

//! What a job has to keep to when workers, callers in need and a canceller meet, for loom.
//!
//! A page is a [`loom::cell::UnsafeCell`]: two accesses to one that are not ordered by the job are
//! a data race, and loom panics.

use super::super::{
    job::{Handle, Initializer, Owned},
    pfn::{PfnRange, Units},
};
use kernel::{
    alloc::NumaNode,
    preempt::{self, preempt_disable},
    prelude::*,
    sync::{atomic, Completion},
    task, time,
    workqueue::{self, Queue},
};
use loom::{cell::UnsafeCell, model::Builder, thread};
use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

/// Not initialised yet.
const RAW: u32 = 0;
/// Initialised, or told so.
const READY: u32 = 1;
/// The canceller took it away.
const GONE: u32 = 2;

/// The first pfn of all ranges: the first unit of two pages has one only.
const START: usize = 1001;

/// So many pages become available for one that is initialised.
const AVAILABLE: usize = 10;

static QUEUE: Queue = Queue::Threads;
static STUCK: Queue = Queue::Stuck;

/// The struct pages of a range, and what its owner is told.
struct Memmap {
    pages: Vec<UnsafeCell<u32>>,
    done: UnsafeCell<u32>,
    setup: Setup,
    /// What was initialised at a time, for those who look at it afterwards.
    pieces: Mutex<Vec<Range<usize>>>,
    finished: Completion,
}

// SAFETY: It is not `Sync` for the cells' sake. Whether they are accessed one at a time is what
// loom is asked here; it panics before an access that races.
unsafe impl Send for Memmap {}
// SAFETY: As above.
unsafe impl Sync for Memmap {}

fn replace(cell: &UnsafeCell<u32>, to: u32) -> u32 {
    // SAFETY: loom has checked that nobody else reads or writes.
    cell.with_mut(|p| unsafe { std::mem::replace(&mut *p, to) })
}

fn read(cell: &UnsafeCell<u32>) -> u32 {
    // SAFETY: loom has checked that nobody writes.
    cell.with(|p| unsafe { *p })
}

impl Memmap {
    fn nr_ready(&self) -> usize {
        self.pages.iter().filter(|page| read(page) == READY).count()
    }

    fn pieces(&self) -> Vec<Range<usize>> {
        self.pieces.lock().unwrap().clone()
    }
}

/// How a job knows a [`Memmap`].
struct Init(Arc<Memmap>);

impl Initializer for Init {
    fn init(&self, owned: Owned<'_>, can_sleep: bool) -> usize {
        let memmap = &*self.0;
        let pfns = owned.pfns();
        let pages = pfns.start() - START..pfns.end() - START;

        assert_eq!(can_sleep, !preempt::is_disabled(), "it may sleep");
        assert!(
            memmap.setup.preemptible || !can_sleep,
            "it can be preempted"
        );
        memmap.pieces.lock().unwrap().push(pages.clone());
        (memmap.setup.begin)(memmap);
        time::pass((memmap.setup.nanos)(pages.start));

        for page in &memmap.pages[pages] {
            match replace(page, READY) {
                RAW => {}
                READY => panic!("a page is initialised twice"),
                _ => panic!("a page is touched after the cancel"),
            }
        }
        pfns.nr_pages() * AVAILABLE
    }

    fn done(&self) {
        assert_eq!(replace(&self.0.done, READY), RAW, "done twice or too late");
        assert_eq!(self.0.nr_ready(), self.0.pages.len(), "done too early");
        self.0.finished.complete_all();
    }

    fn preemptible(&self) -> bool {
        self.0.setup.preemptible
    }
}

/// A job, and what it is to initialise.
struct Model {
    handle: Handle<Init>,
    memmap: Arc<Memmap>,
}

/// What a model is made of.
#[derive(Clone, Copy)]
struct Setup {
    nr_pages: usize,
    unit_pages: usize,
    nr_workers: usize,
    queue: &'static Queue,
    preemptible: bool,
    /// Called for each piece, before it is initialised.
    begin: fn(&Memmap),
    /// How long a piece takes that begins with this page.
    nanos: fn(usize) -> i64,
}

/// Three units; the first has one page, the others have two.
const SETUP: Setup = Setup {
    nr_pages: 5,
    unit_pages: 2,
    nr_workers: 1,
    queue: &QUEUE,
    preemptible: false,
    begin: |_| {},
    nanos: |_| 0,
};

impl Model {
    fn new(setup: Setup) -> Self {
        let memmap = Arc::new(Memmap {
            pages: (0..setup.nr_pages).map(|_| UnsafeCell::new(RAW)).collect(),
            done: UnsafeCell::new(RAW),
            setup,
            pieces: Mutex::new(Vec::new()),
            finished: Completion::new(),
        });
        let units = Units::new(pfns(0, setup.nr_pages), setup.unit_pages).unwrap();
        let init = Init(memmap.clone());
        let handle = Handle::new(init, units, setup.nr_workers, NumaNode, setup.queue).unwrap();

        Self { handle, memmap }
    }

    /// Has a page ready, and reads it.
    fn sync(&self, page: usize) -> Result {
        self.handle.job().sync(pfns(page, 1))?;
        assert_eq!(read(&self.memmap.pages[page]), READY, "read but not ready");
        Ok(())
    }

    /// Asserts that the range is done, as a caller of `wait()` may.
    fn is_done(&self) {
        assert_eq!(self.memmap.nr_ready(), self.memmap.pages.len());
        assert_eq!(read(&self.memmap.done), READY, "done was not called");
        assert_eq!(
            self.handle.job().nr_pages(),
            self.memmap.pages.len() * AVAILABLE,
            "so many pages are available"
        );
    }

    fn wait(&self) {
        self.handle.job().wait();
        self.is_done();
    }

    /// Cancels the job, and takes away what is not ready.
    fn cancel(&self) {
        self.handle.job().cancel();

        let nr_ready = self.memmap.nr_ready();
        let nr_pages = self.memmap.pages.len();

        for page in &self.memmap.pages {
            if read(page) != READY {
                replace(page, GONE);
            }
        }
        assert_eq!(
            replace(&self.memmap.done, GONE) == READY,
            nr_ready == nr_pages,
            "done means all, and all means done"
        );
        assert_eq!(self.handle.job().nr_pages(), nr_ready * AVAILABLE);
    }

    /// Asserts that nothing more comes of what was cancelled.
    fn is_cancelled(&self) {
        for page in 0..self.memmap.pages.len() {
            assert_eq!(self.sync(page), Err(ENXIO), "a sync after the cancel");
        }
        assert_eq!(self.handle.job().grow(usize::MAX), 0);
        self.handle.job().wait();
        self.handle.job().cancel();
    }
}

fn pfns(page: usize, nr_pages: usize) -> PfnRange {
    PfnRange::new(START + page, START + page + nr_pages).unwrap()
}

/// Runs `model` with a job in all interleavings with at most so many preemptions, unless
/// `LOOM_MAX_PREEMPTIONS` says something else. As in [`claim`](super::claim), no two may spin for a
/// third.
fn check(preemptions: usize, setup: Setup, model: fn(Arc<Model>)) {
    builder(preemptions).check(move || model(Arc::new(Model::new(setup))));
}

fn builder(preemptions: usize) -> Builder {
    let mut builder = Builder::new();

    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder
}

/// Starts a thread on `model`.
fn spawn<T: 'static>(
    model: &Arc<Model>,
    f: impl FnOnce(&Model) -> T + 'static,
) -> thread::JoinHandle<T> {
    let model = model.clone();

    thread::spawn(move || f(&model))
}

/// A worker, and a caller who needs a page, and then all of them.
pub(crate) fn a_worker_and_a_sync() {
    check(3, SETUP, |model| {
        model.handle.start();
        model.sync(3).unwrap();
        model.wait();
    });
}

/// Two workers, and a caller who waits for all.
pub(crate) fn two_workers_and_a_wait() {
    let setup = Setup {
        nr_workers: 2,
        ..SETUP
    };

    check(2, setup, |model| {
        model.handle.start();
        model.wait();
    });
}

/// Two callers who need the same page, and no worker. Neither does more than that.
pub(crate) fn two_syncs_of_one_page() {
    check(3, SETUP, |model| {
        let other = spawn(&model, |model| model.sync(1));

        model.sync(2).unwrap();
        other.join().unwrap().unwrap();
        assert_eq!(model.memmap.nr_ready(), 2);
        assert_eq!(model.handle.job().nr_pages(), 2 * AVAILABLE);
    });
}

/// Two callers who need a page each, one of which is the last that is needed. One is told so.
pub(crate) fn two_syncs_of_all() {
    let setup = Setup {
        nr_pages: 3,
        ..SETUP
    };

    check(3, setup, |model| {
        let other = spawn(&model, |model| model.sync(0));

        model.sync(1).unwrap();
        other.join().unwrap().unwrap();
        model.is_done();
    });
}

/// A caller with interrupts off who needs memory, while a worker is at it.
pub(crate) fn grow_and_a_worker() {
    check(3, SETUP, |model| {
        model.handle.start();

        let guard = preempt_disable();
        let available = model.handle.job().grow(1);

        drop(guard);
        assert!([0, AVAILABLE, 2 * AVAILABLE].contains(&available));
        model.wait();
    });
}

/// The same, but units take long, so that those who may sleep can.
pub(crate) fn grow_and_a_worker_that_can_be_preempted() {
    let setup = Setup {
        preemptible: true,
        ..SETUP
    };

    check(2, setup, |model| {
        model.handle.start();

        let guard = preempt_disable();

        model.handle.job().grow(1);
        drop(guard);
        model.wait();
    });
}

/// There is no memory for a worker. The waiter does all of it, with a caller who needs a page.
pub(crate) fn wait_takes_part() {
    let setup = Setup {
        queue: &STUCK,
        ..SETUP
    };

    check(2, setup, |model| {
        let other = spawn(&model, |model| model.sync(2));

        model.handle.start();
        model.wait();
        other.join().unwrap().unwrap();
    });
}

/// A cancel, and a caller who needs a page. See [`Model::cancel()`].
pub(crate) fn cancel_and_a_sync() {
    let setup = Setup {
        queue: &STUCK,
        ..SETUP
    };

    check(3, setup, |model| {
        let other = spawn(&model, |model| {
            let _ = model.sync(1);
        });

        model.cancel();
        other.join().unwrap();
        model.is_cancelled();
    });
}

/// A cancel, and a worker that may be quicker. The last owner of a reference frees the job.
pub(crate) fn cancel_and_a_worker() {
    let setup = Setup {
        nr_pages: 2,
        ..SETUP
    };

    check(3, setup, |model| {
        model.handle.start();
        model.cancel();
        model.is_cancelled();
    });
}

/// A cancel, and both of them.
pub(crate) fn cancel_and_a_worker_and_a_sync() {
    let setup = Setup {
        nr_pages: 2,
        ..SETUP
    };

    check(2, setup, |model| {
        let other = spawn(&model, |model| {
            let _ = model.sync(1);
        });

        model.handle.start();
        model.cancel();
        other.join().unwrap();
        model.is_cancelled();
    });
}

/// A cancel ends a wait. When it does, nothing is in flight any more.
pub(crate) fn cancel_ends_a_wait() {
    let setup = Setup {
        nr_pages: 3,
        ..SETUP
    };

    check(2, setup, |model| {
        let other = spawn(&model, |model| {
            model.handle.job().wait();
            // Neither a page nor the word that all is done.
            model.memmap.nr_ready();
            read(&model.memmap.done);
        });

        model.handle.start();
        model.handle.job().cancel();
        other.join().unwrap();
    });
}

/// A worker that is preempted as soon as it can be, until the model ends. By then it must have
/// published its units, and left.
pub(crate) fn a_preempted_worker() {
    let setup = Setup {
        begin: preempted,
        ..SETUP
    };

    check(3, setup, |model| {
        model.handle.start();
        model.handle.job().sync(pfns(0, 1)).unwrap();
        model.handle.job().cancel();
        model.memmap.finished.complete_all();
    });
}

/// A worker is preempted when next it can be, until `finished` is complete.
fn preempted(memmap: &Memmap) {
    let memmap = memmap as *const Memmap;

    if workqueue::runs() == 0 {
        return;
    }
    preempt::when_enabled(move || {
        // SAFETY: Preemption is enabled by a call of the job, to which it belongs.
        unsafe { &*memmap }.finished.wait_for_completion();
    });
}

/// Starting twice is as good as starting once.
pub(crate) fn started_twice() {
    check(2, SETUP, |model| {
        let other = spawn(&model, |model| model.handle.start());

        model.handle.start();
        model.memmap.finished.wait_for_completion();
        other.join().unwrap();
    });
}

/// A sync refuses what is not in the range, and initialises what it was asked for only.
pub(crate) fn nothing_else() {
    check(0, SETUP, |model| {
        let job = model.handle.job();

        assert_eq!(job.sync(pfns(5, 1)), Err(EINVAL));
        assert_eq!(job.sync(pfns(4, 2)), Err(EINVAL));
        assert_eq!(job.grow(0), 0, "nothing was asked for");
        assert_eq!(model.memmap.nr_ready(), 0);
        job.sync(pfns(2, 2)).unwrap();
        assert_eq!(
            model.memmap.pieces(),
            [1..3, 3..5],
            "only what was asked for"
        );
    });
}

/// Grows: unit by unit from the front, no more than needed, until nothing is left.
pub(crate) fn grow_takes_what_it_needs() {
    check(0, SETUP, |model| {
        let job = model.handle.job();

        assert_eq!(job.grow(AVAILABLE), AVAILABLE);
        assert_eq!(job.grow(1), 2 * AVAILABLE);
        assert_eq!(model.memmap.nr_ready(), 3);
        assert_eq!(job.grow(usize::MAX), 2 * AVAILABLE);
        assert_eq!(job.grow(1), 0);
        model.is_done();
    });
}

/// Grows: does not look again where nothing was left.
pub(crate) fn grow_goes_on() {
    let setup = Setup {
        nr_pages: 4 * 64,
        unit_pages: 1,
        ..SETUP
    };

    check(0, setup, |model| {
        let job = model.handle.job();
        let loads = |nr_pages| {
            let before = atomic::loads();

            assert_eq!(job.grow(nr_pages), nr_pages);
            atomic::loads() - before
        };
        let first = loads(AVAILABLE);

        loads(3 * 64 * AVAILABLE);
        assert_eq!(loads(AVAILABLE), first, "it looks everywhere");
    });
}

/// Says that it might sleep, though it needs not: at once, and not only if it has to wait.
pub(crate) fn who_might_sleep_says_so() {
    check(0, SETUP, |model| {
        let job = model.handle.job();
        let said = |f: &dyn Fn()| {
            let before = task::might_have_slept();

            f();
            task::might_have_slept() - before
        };

        assert_eq!(said(&|| job.sync(pfns(0, 5)).unwrap()), 1, "a sync");
        // Waiting for a completion says so, too.
        assert_eq!(said(&|| job.wait()), 2, "a wait");
        assert_eq!(said(&|| job.cancel()), 1, "a cancel");
    });
}

/// The pieces of a range, for a waiter without workers: more and more units, up to a word of them,
/// or to 2048 pages, if they don't take long.
pub(crate) fn how_much_at_a_time() {
    fn sizes(nr_pages: usize, unit_pages: usize, nanos: fn(usize) -> i64) -> Vec<usize> {
        let setup = Setup {
            nr_pages,
            unit_pages,
            queue: &STUCK,
            nanos,
            ..SETUP
        };
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let copy = sizes.clone();

        builder(0).check(move || {
            let model = Model::new(setup);

            model.wait();
            *copy.lock().unwrap() = model.memmap.pieces().iter().map(|p| p.len()).collect();
        });
        Arc::into_inner(sizes).unwrap().into_inner().unwrap()
    }

    // Three words, and it begins in the last one.
    assert_eq!(sizes(128 + 56, 1, |_| 50_000), [1, 2, 4, 8, 16, 25, 64, 64]);
    // Too long for more at a time, and for as many.
    let nanos = |page| match page {
        0 => 50_000,
        1 => 50_001,
        3 => 100_000,
        _ => 100_001,
    };

    assert_eq!(sizes(9, 1, nanos), [1, 2, 2, 2, 1, 1]);
    // The first unit has 23 pages.
    assert_eq!(
        sizes(23 + 13 * 512, 512, |_| 0),
        [23, 1024, 2048, 2048, 1536]
    );
    assert_eq!(sizes(23 + 2048, 4096, |_| 0), [23 + 2048]);
}

/// Each worker begins in a part of the range of its own.
pub(crate) fn where_workers_begin() {
    let setup = Setup {
        nr_pages: 3 * 64,
        unit_pages: 1,
        nr_workers: 3,
        begin: preempted,
        ..SETUP
    };

    check(0, setup, |model| {
        model.handle.start();
        while model.memmap.pieces().len() < 3 {
            thread::yield_now();
        }

        let mut starts: Vec<_> = model.memmap.pieces().iter().map(|p| p.start).collect();

        starts.sort();
        assert_eq!(starts, [0, 64, 128], "where they begin");
        model.memmap.finished.complete_all();
    });
}

/// There is a worker at least, and none without a unit.
pub(crate) fn how_many_workers() {
    for (wanted, got) in [(0, 1), (2, 2), (3, 3), (4, 3)] {
        builder(0).check(move || {
            let model = Model::new(Setup {
                nr_workers: wanted,
                queue: &STUCK,
                ..SETUP
            });

            model.handle.start();
            assert_eq!(workqueue::stuck(), got, "so many workers");
        });
    }
}

/// What does nothing, but notes for each of its units how many times its thread has let others have
/// the CPU, and how many times it was queued.
struct Turns {
    finished: Arc<Completion>,
    turns: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl Initializer for Turns {
    fn init(&self, _: Owned<'_>, _: bool) -> usize {
        let turn = (task::scheduled(), workqueue::runs());

        self.turns.lock().unwrap().push(turn);
        0
    }

    fn done(&self) {
        self.finished.complete_all();
    }

    fn preemptible(&self) -> bool {
        false
    }
}

/// What [`Turns`] notes of a worker, or of a waiter without one. A slice is two units.
fn turns(queue: &'static Queue, wait: bool) -> Vec<(usize, usize)> {
    const UNIT_PAGES: usize = 16384;
    const NR_UNITS: usize = 2 * 64 + 3;

    let turns = Arc::new(Mutex::new(Vec::new()));
    let copy = turns.clone();

    builder(0).check(move || {
        let finished = Arc::new(Completion::new());
        let init = Turns {
            finished: finished.clone(),
            turns: copy.clone(),
        };
        let range = PfnRange::new(0, NR_UNITS * UNIT_PAGES).unwrap();
        let units = Units::new(range, UNIT_PAGES).unwrap();
        let handle = Handle::new(init, units, 1, NumaNode, queue).unwrap();

        copy.lock().unwrap().clear();
        handle.start();
        if wait {
            handle.job().wait();
        }
        finished.wait_for_completion();
    });
    Arc::into_inner(turns).unwrap().into_inner().unwrap()
}

/// After each slice others have the CPU, after many of them a worker's place in the queue.
pub(crate) fn others_get_their_turn() {
    let worker: Vec<_> = (0..131).map(|unit| (unit / 2, 1 + unit / 128)).collect();
    let waiter: Vec<_> = (0..131).map(|unit| (unit / 2, 0)).collect();

    assert_eq!(turns(&QUEUE, false), worker, "a worker's turns");
    assert_eq!(turns(&STUCK, true), waiter, "a waiter's turns");
}
