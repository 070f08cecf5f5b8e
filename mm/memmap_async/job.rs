// SPDX-License-Identifier: GPL-2.0

//! A range that is being initialised: by workers, and by callers who can't wait for them.
//!
//! All of them do the same: claim a unit, initialise it, publish it; workers some units at a time.
//! So none of them ever waits for another, but for [`Job::sync()`] of a unit that is claimed,
//! and for [`Job::wait()`] and [`Job::cancel()`], which wait by definition.
//!
//! Unless the range says that a unit takes long, preemption is off from before the owner of a claim
//! enters the gate until after it has left: see [`Job::claim_and_init()`]. So a unit in flight is
//! published, and the gate left, within microseconds. Nobody needs a wait queue therefore: spinning
//! is what costs least, and a caller of [`Job::sync()`] or [`Job::cancel()`] does not wait for a
//! worker that was preempted.
//!
//! A caller who waits for the range claims units, too, so that no progress depends on a worker.
//!
//! # Lifetime
//!
//! A [`Job`] is reference counted. Workers hold a reference each; all others borrow the [`Handle`],
//! whose owner keeps it until none of them can be left.
//!
//! This file is also compiled in user space, where loom tries all interleavings of it.

use super::{
    claim::{
        Alone,
        Claim,
        ClaimMap,
        Inside,
        Word, //
    },
    pfn::{
        PfnRange,
        Units, //
    },
};
use kernel::{
    alloc::NumaNode,
    impl_has_work, new_work,
    preempt::preempt_disable,
    prelude::*,
    processor::cpu_relax,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Completion, //
    },
    task::{
        might_sleep,
        schedule, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    workqueue::{
        Queue,
        Work,
        WorkItem, //
    },
};

/// How many pages of small units a worker claims at a time: all owners of claims share the words
/// and the counts of the map. A caller who needs one of these units waits for the whole claim,
/// which is 20 microseconds at 10 ns a struct page.
const BATCH_PAGES: usize = 2048;

/// How many nanoseconds a claim should take at most, since preemption is off meanwhile. Where a
/// struct page takes long, for it is on a slow device or is traced, fewer units are claimed at a
/// time.
const BATCH_NANOS: i64 = 100_000;

/// How much a worker or a waiter does before it lets others have the CPU: 300 microseconds at 10 ns
/// a struct page.
///
/// RCU is one of them. With preemption off for unit after unit, the tick hardly ever sees a
/// quiescent state of this CPU, and callers of `synchronize_rcu()` would wait for the whole range.
const SLICE_PAGES: usize = 32768;

/// After how many slices a worker queues itself again, so that the freezer and the workers of other
/// jobs get their turn: 20 milliseconds. Doing so wakes up an idle worker of the queue, which finds
/// nothing to do as a rule.
const SLICES: usize = 64;

/// How often to look again for a unit in flight before sleeping.
const SPINS: u32 = 1000;

type Words = KVVec<Word>;
type Map = ClaimMap<Words>;

/// What initialises the struct pages of a range, piece by piece.
///
/// A [`Job`] owns its initialiser and shows it to nobody: only the job calls it.
pub(crate) trait Initializer: Send + Sync + 'static {
    /// Initialises what is `owned`; returns how many pages became available by that.
    ///
    /// It runs on several CPUs at a time. Unless it `can_sleep` it must not, and interrupts can be
    /// off.
    fn init(&self, owned: Owned<'_>, can_sleep: bool) -> usize;

    /// Learns that all of the range is initialised: once, and not if the job was cancelled before.
    /// Waiters and a task that cancels wait until it returns.
    ///
    /// It runs where the last unit was initialised, and must not sleep: see [`Job::grow()`].
    fn done(&self);

    /// Whether [`init()`](Self::init) takes longer than preemption should be off.
    fn preemptible(&self) -> bool;
}

/// The right, and the duty, to initialise some pfns.
///
/// # Invariants
///
/// - `pfns` are those of the units of `_claim`, which is a claim of the job whose initialiser gets
///   this.
/// - There was no other [`Owned`] of this claim. When the initialiser returns, the claim is
///   published.
pub(crate) struct Owned<'a> {
    pfns: PfnRange,
    _claim: &'a Claim<'a, Words>,
}

impl Owned<'_> {
    /// The pfns.
    pub(crate) fn pfns(&self) -> PfnRange {
        self.pfns
    }
}

/// A range that is being initialised. See the [module](self).
#[pin_data]
pub(crate) struct Job<I: Initializer> {
    units: Units,
    map: Map,
    init: I,
    /// What `init` returned, added up.
    nr_pages: Alone<Atomic<usize>>,
    /// Where [`grow()`](Self::grow) goes on.
    front: Cursor,
    /// All is done, or will never be.
    #[pin]
    idle: Completion,
}

impl<I: Initializer> Job<I> {
    /// Claims units, as `claim` does it, and initialises them. Must not be called with preemption
    /// off if `can_sleep`.
    ///
    /// Preemption is off before the gate is entered, and on again after it was left, for each claim
    /// anew. A task that was preempted on its way would keep [`cancel()`](Self::cancel) and the
    /// callers who need its units waiting until the scheduler lets it run again.
    fn claim_and_init(
        &self,
        can_sleep: bool,
        claim: impl for<'a> FnOnce(&'a Inside<'_, Words>) -> Option<Claim<'a, Words>>,
    ) -> Option<Piece> {
        // What is declared first is dropped last.
        let _guard = (!self.init.preemptible()).then(preempt_disable);
        let inside = self.map.enter()?;
        let claim = claim(&inside)?;
        let units = claim.units();
        let pfns = self.units.pfns(units.clone())?;

        // INVARIANT: `claim` is of our map, and `pfns` was looked up for it. It is published below.
        let owned = Owned {
            pfns,
            _claim: &claim,
        };
        // It may sleep if the caller may and we did not turn preemption off.
        let available = self.init.init(owned, can_sleep && self.init.preemptible());
        self.nr_pages.0.fetch_add(available, Relaxed);

        if claim.publish() {
            // One claim is the last one, so this happens once. We are still inside the gate, so a
            // task that cancels waits for it.
            self.init.done();
            self.idle.complete_all();
        }
        Some(Piece {
            word: units.start / Word::UNITS,
            nr_pages: pfns.nr_pages(),
            available,
        })
    }

    /// Initialises [`SLICE_PAGES`], going on at `cursor`; returns whether there is more to do.
    fn slice(&self, cursor: &Cursor) -> bool {
        let mut nr_pages: usize = 0;

        while nr_pages < SLICE_PAGES {
            let start = Instant::<Monotonic>::now();

            match self.claim_and_init(true, |inside| cursor.claim(inside)) {
                Some(piece) => {
                    nr_pages = nr_pages.saturating_add(piece.nr_pages);
                    cursor.advance(&piece, self.max_units(), start.elapsed());
                }
                // All claimed, or closed. No claim of ours is dropped unused, so that is for good.
                None => return false,
            }
        }
        true
    }

    /// How many units to claim at a time, if they don't take long.
    fn max_units(&self) -> u32 {
        if cfg!(CONFIG_PREEMPT_RT) {
            1
        } else {
            self.units.whole_in(BATCH_PAGES).clamp(1, Word::UNITS) as u32
        }
    }

    /// Initialises what is needed of `pfns`, now. May sleep. See `memmap_async_sync()`.
    pub(crate) fn sync(&self, pfns: PfnRange) -> Result {
        might_sleep();
        for unit in self.units.covering(pfns).ok_or(EINVAL)? {
            self.sync_unit(unit)?;
        }
        Ok(())
    }

    fn sync_unit(&self, unit: usize) -> Result {
        let mut spins = 0;

        loop {
            if self.map.is_closed() {
                return Err(ENXIO);
            }
            if self.map.is_done(unit) {
                return Ok(());
            }
            // Entering the gate writes to what the owner of the unit needs to publish it. So look
            // first, and leave it alone as long as there is nothing to claim.
            if self.map.is_todo(unit) {
                self.claim_and_init(true, |inside| inside.claim(unit));
            }
            relax(&mut spins);
        }
    }

    /// Initialises units until `nr_pages` are available. See `memmap_async_grow()`.
    ///
    /// Process or interrupt context, but not NMI, nor a hard interrupt of PREEMPT_RT: the owner of
    /// the last unit completes `idle`.
    pub(crate) fn grow(&self, nr_pages: usize) -> usize {
        let mut available: usize = 0;

        while available < nr_pages {
            match self.claim_and_init(false, |inside| self.front.claim(inside)) {
                Some(piece) => {
                    available = available.saturating_add(piece.available);
                    self.front.word.store(piece.word, Relaxed);
                }
                None => break,
            }
        }
        available
    }

    /// Initialises what is not claimed yet, and waits until the range is done or the job is
    /// cancelled. May sleep.
    pub(crate) fn wait(&self) {
        might_sleep();
        // Where no worker begins, as a rule.
        let cursor = Cursor::new(Map::nr_words(self.units.count()) / 3 * 2);

        while self.slice(&cursor) {
            schedule();
        }
        self.idle.wait_for_completion();
    }

    /// Has the range left alone: when this returns, no claim of it is left. May sleep.
    pub(crate) fn cancel(&self) {
        let mut spins = 0;

        might_sleep();
        self.map.close();
        while !self.map.is_empty() {
            relax(&mut spins);
        }
        self.idle.complete_all();
    }

    /// The pages that became available so far. Any context.
    pub(crate) fn nr_pages(&self) -> usize {
        self.nr_pages.0.load(Relaxed)
    }
}

/// What was just initialised.
struct Piece {
    /// Where it is in the claim map.
    word: usize,
    nr_pages: usize,
    available: usize,
}

/// Where to go on with the range, and how many units at a time. Both are hints.
struct Cursor {
    /// The word of the claim map.
    word: Atomic<usize>,
    units: Atomic<u32>,
}

impl Cursor {
    /// Begins at `word`, with one unit since it is not known how long that takes.
    fn new(word: usize) -> Self {
        Self {
            word: Atomic::new(word),
            units: Atomic::new(1),
        }
    }

    /// Claims what is next.
    fn claim<'a>(&self, inside: &'a Inside<'_, Words>) -> Option<Claim<'a, Words>> {
        inside.claim_near(self.word.load(Relaxed), self.units.load(Relaxed))
    }

    /// Goes on after `piece`, which took so long: the next one should take [`BATCH_NANOS`] at most.
    fn advance(&self, piece: &Piece, max_units: u32, took: Delta) {
        let units = self.units.load(Relaxed);
        let nanos = took.as_nanos();
        let next = if nanos > BATCH_NANOS {
            units / 2
        } else if nanos <= BATCH_NANOS / 2 {
            units.saturating_mul(2)
        } else {
            units
        };

        self.units.store(next.clamp(1, max_units), Relaxed);
        self.word.store(piece.word, Relaxed);
    }
}

/// Waits a little for a unit in flight; sleeps when that does not help.
fn relax(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        cpu_relax();
    } else {
        fsleep(Delta::from_micros(50));
    }
}

/// One of the work items that initialise a [`Job`] in the background.
#[pin_data]
struct Worker<I: Initializer> {
    job: Arc<Job<I>>,
    queue: &'static Queue,
    node: NumaNode,
    cursor: Cursor,
    #[pin]
    work: Work<Worker<I>>,
}

impl_has_work! {
    impl{I: Initializer} HasWork<Self> for Worker<I> { self.work }
}

impl<I: Initializer> WorkItem for Worker<I> {
    type Pointer = Arc<Worker<I>>;

    fn run(this: Arc<Worker<I>>) {
        for _ in 0..SLICES {
            if !this.job.slice(&this.cursor) {
                return;
            }
            schedule();
        }

        let (queue, node) = (this.queue, this.node);

        // It runs, so it is not queued, unless by `Handle::start()` just now.
        let _ = queue.enqueue_on_node(node, this);
    }
}

/// A [`Job`] with its workers: what `struct memmap_async` is in C.
pub(crate) struct Handle<I: Initializer> {
    job: Arc<Job<I>>,
    workers: KVec<Arc<Worker<I>>>,
}

impl<I: Initializer> Handle<I> {
    /// Prepares a job for `nr_workers`, or as many as there are units. Nothing is initialised yet.
    /// May sleep.
    pub(crate) fn new(
        init: I,
        units: Units,
        nr_workers: usize,
        node: NumaNode,
        queue: &'static Queue,
    ) -> Result<Self> {
        let nr_units = units.count();
        let nr_words = Map::nr_words(nr_units);
        let mut words = KVVec::with_capacity(nr_words, GFP_KERNEL)?;
        for _ in 0..nr_words {
            words.push(Word::default(), GFP_KERNEL)?;
        }
        let map = Map::new(words, nr_units).ok_or(EINVAL)?;

        let job = Arc::pin_init(
            pin_init!(Job {
                units,
                map,
                init,
                nr_pages: Alone(Atomic::new(0)),
                // From the front: this is where the first worker begins, and leaves first.
                front: Cursor::new(0),
                idle <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;

        // Each begins in a part of the range of its own, and goes round from there.
        let nr_workers = nr_workers.clamp(1, nr_units);
        let mut workers = KVec::with_capacity(nr_workers, GFP_KERNEL)?;
        for index in 0..nr_workers {
            let job = job.clone();
            let worker = Arc::pin_init(
                pin_init!(Worker {
                    job,
                    queue,
                    node,
                    cursor: Cursor::new(index * nr_words / nr_workers),
                    work <- new_work!("memmap_async::Worker"),
                }),
                GFP_KERNEL,
            )?;
            workers.push(worker, GFP_KERNEL)?;
        }

        Ok(Self { job, workers })
    }

    /// Lets the workers begin. Does not wait.
    pub(crate) fn start(&self) {
        for worker in &self.workers {
            // One that is queued already is as good.
            let _ = worker.queue.enqueue_on_node(worker.node, worker.clone());
        }
    }

    /// The job.
    pub(crate) fn job(&self) -> &Job<I> {
        &self.job
    }
}
