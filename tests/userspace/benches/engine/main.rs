// SPDX-License-Identifier: GPL-2.0

//! What `job.rs` and `claim.rs` cost: workers on each CPU initialise a range, so many units of 512
//! struct pages at a time. See `README.md` for what the tables mean.
//!
//! A job of the kernel claims `BATCH_PAGES` at a time. That stays as it is here; instead a pfn
//! stands for more or for less than a struct page, so that a batch is as many units as are wanted.

#[path = "../../../../mm/memmap_async/claim.rs"]
mod claim;
#[path = "../../../../mm/memmap_async/job.rs"]
#[expect(dead_code, reason = "only workers run here")]
mod job;
#[path = "../stamp/memory.rs"]
mod memory;
#[path = "../../../../mm/memmap_async/pfn.rs"]
mod pfn;
#[path = "../../../../mm/memmap_async/stamp.rs"]
#[allow(dead_code, reason = "one of its stores is used")]
mod stamp;

use job::{Handle, Initializer, Owned};
use kernel::{alloc::NumaNode, workqueue::Queue};
use memory::Memmap;
use pfn::{PfnRange, Units};
use std::{
    cell::RefCell,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Barrier, Mutex,
    },
    thread,
    time::{Duration, Instant},
};

/// What `memory.rs` wants to know.
mod ways {
    pub(crate) const UNIT: usize = 512;

    pub(crate) type Page = [usize; 8];
}

/// `BATCH_PAGES` of `job.rs`.
const BATCH_PFNS: usize = 2048;

const ROUNDS: usize = 25;

/// In a run without stores, so that it takes much longer than threads take to start.
const CLAIMS: usize = 1 << 16;

/// What is done for a claim where the model is compared with the machine, in nanoseconds.
const WORK: [u64; 6] = [0, 250, 500, 1000, 2000, 4000];

/// Of how many CPUs the model is asked.
const MANY: [usize; 4] = [2, 8, 16, 64];

/// Units at a time.
const BATCHES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The batch of the kernel.
const OURS: usize = BATCH_PFNS / ways::UNIT;

/// What is done for a unit.
#[derive(Clone)]
enum Work {
    Nothing,
    /// So many nanoseconds on nothing but the clock, and [`GAPS`] counts what is between.
    Wait(u64),
    /// Its struct pages are written.
    Stores(Arc<Memmap>),
}

/// What a thread spends on claims between one piece of work and the next.
#[derive(Default)]
struct Gaps {
    last: Option<Instant>,
    nanos: u64,
    nr: u64,
}

impl Gaps {
    /// In a gap that is longer the thread has lost its CPU.
    const LOST: u64 = 10_000;

    fn begin(&mut self) {
        self.last = Some(Instant::now());
    }

    fn end(&mut self, now: Instant) {
        let nanos = self.last.map_or(0, |last| (now - last).as_nanos() as u64);

        if (1..Self::LOST).contains(&nanos) {
            self.nanos += nanos;
            self.nr += 1;
        }
    }
}

thread_local! {
    static GAPS: RefCell<Gaps> = RefCell::default();
}

struct Init {
    work: Work,
    unit_pfns: usize,
}

impl Initializer for Init {
    fn init(&self, owned: Owned<'_>, _: bool) -> usize {
        let pfns = owned.pfns();

        let units = pfns.start() / self.unit_pfns..pfns.end() / self.unit_pfns;

        match &self.work {
            Work::Nothing => {}
            Work::Wait(ns) => {
                let start = Instant::now();
                let end = start + Duration::from_nanos(*ns);

                GAPS.with_borrow_mut(|gaps| gaps.end(start));
                while Instant::now() < end {}
                GAPS.with_borrow_mut(|gaps| gaps.begin());
            }
            Work::Stores(memmap) => units.for_each(|unit| write(memmap, unit)),
        }
        pfns.nr_pages()
    }

    fn done(&self) {}

    fn preemptible(&self) -> bool {
        false
    }
}

#[cfg(CONFIG_X86_64)]
use stamp::NonTemporal as Best;
#[cfg(not(CONFIG_X86_64))]
use stamp::Plain as Best;

fn write(memmap: &Memmap, unit: usize) {
    let page = memmap.unit(unit);

    // SAFETY: There are `UNIT` pages, and each unit is one thread's only. The first two are
    // initialised here.
    unsafe {
        page.write_bytes(1, 2);
        stamp::stamp::<8, 1, Best>(page.cast(), ways::UNIT);
    }
}

/// Runs `f` once on each of so many CPUs, all at a time; nanoseconds from the first one's start to
/// the last one's end.
fn on_cpus(cpus: usize, f: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(cpus);
    let times: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (barrier, f) = (&barrier, &f);

                scope.spawn(move || {
                    memory::bind(cpu, cpus);
                    barrier.wait();
                    let start = Instant::now();
                    f(cpu);
                    (start, Instant::now())
                })
            })
            .collect();

        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let start = times.iter().map(|t| t.0).min().unwrap();

    times.iter().map(|t| t.1 - start).max().unwrap().as_nanos() as f64
}

/// The least of each of those that are measured in turn: nothing is faster by chance, while a
/// machine with other work slows each down in some rounds.
fn least<const N: usize>(measure: [&dyn Fn() -> f64; N]) -> [f64; N] {
    let mut least = [f64::INFINITY; N];

    for _ in 0..ROUNDS {
        for (least, measure) in least.iter_mut().zip(measure) {
            *least = least.min(measure());
        }
    }
    least
}

static QUEUE: Queue = Queue::Threads;

/// A job whose workers are about to run.
fn job(cpus: usize, batch: usize, nr_units: usize, work: &Work) -> Handle<Init> {
    let unit_pfns = BATCH_PFNS / batch;
    let range = PfnRange::new(0, nr_units * unit_pfns).unwrap();
    let units = Units::new(range, unit_pfns).unwrap();
    let init = Init {
        work: work.clone(),
        unit_pfns,
    };
    let handle = Handle::new(init, units, cpus, NumaNode, &QUEUE).unwrap();

    handle.start();
    handle
}

fn run_workers() {
    while QUEUE.run_next() {}
}

/// How long one CPU takes for a unit, in nanoseconds, if so many work with such a batch.
fn unit_ns(cpus: usize, batch: usize, nr_units: usize, work: &Work) -> f64 {
    let handle = job(cpus, batch, nr_units, work);
    let ns = on_cpus(cpus, |_| run_workers());

    assert_eq!(handle.job().nr_pages(), nr_units * BATCH_PFNS / batch);
    ns * cpus as f64 / nr_units as f64
}

/// The mean of what a claim of one unit takes where the unit takes so many nanoseconds.
fn gap_ns(cpus: usize, work: u64) -> f64 {
    let all = Mutex::new((0, 0));
    let _handle = job(cpus, 1, CLAIMS / 4, &Work::Wait(work));

    on_cpus(cpus, |_| {
        run_workers();
        let gaps = GAPS.take();
        let mut all = all.lock().unwrap();

        *all = (all.0 + gaps.nanos, all.1 + gaps.nr);
    });
    let all = all.into_inner().unwrap();

    all.0 as f64 / all.1 as f64
}

/// The same without a job: each CPU writes its part.
fn bare_ns(cpus: usize, memmap: &Memmap) -> f64 {
    let ns = on_cpus(cpus, |cpu| {
        memmap.part(cpu, cpus).for_each(|unit| write(memmap, unit));
    });

    ns * cpus as f64 / memmap.nr_units() as f64
}

/// How long a cache line takes from CPU to CPU: two of them count up in turn. That is twice a turn,
/// to see that it has come and to have it for oneself. No `spin_loop()`, which takes long itself.
fn transfer_ns() -> f64 {
    const TURNS: u64 = 20_000;
    let line = claim::Alone(AtomicU64::new(0));
    let ns = on_cpus(2, |cpu| {
        for turn in (cpu as u64..TURNS).step_by(2) {
            while line.0.load(Ordering::Relaxed) != turn {}
            line.0.fetch_add(1, Ordering::AcqRel);
        }
    });

    ns / (2 * TURNS) as f64
}

/// How long a claim takes from one to the next, in nanoseconds, by mean value analysis of a closed
/// network: each CPU works for `own` by itself, and then needs what all of them share. These are
/// two cache lines, that of the pages, and that of the gate and of what remains, each once: a
/// worker publishes, leaves and enters for the next claim before another one takes the line. And
/// it is the node's memory for `memory`. One CPU at a time has a line, and it takes `transfer` to
/// get to the next one, unless that is the same CPU.
fn claim_ns(cpus: usize, own: f64, transfer: f64, memory: f64) -> f64 {
    let visit = transfer * (cpus - 1) as f64 / cpus as f64;
    let demands = [visit, visit, memory];
    let mut queues = [0.0; 3];
    let mut all = own;

    for n in 1..=cpus {
        let times = [0, 1, 2].map(|i| demands[i] * (1.0 + queues[i]));

        all = own + times.iter().sum::<f64>();
        queues = times.map(|time| time * n as f64 / all);
    }
    all
}

/// What claims cost, in percent of what all else takes: so many CPUs of a node whose memory takes
/// so many GB/s (none: as much as they write).
fn overhead(cpus: usize, units: usize, costs: &Costs, transfer: f64, gb: Option<f64>) -> f64 {
    let bytes = (units * ways::UNIT * size_of::<ways::Page>()) as f64;
    let memory = gb.map_or(0.0, |gb| bytes / gb);
    // One CPU's stores have been to memory already.
    let stores = (costs.stores * units as f64 - memory).max(0.0);
    let without = claim_ns(cpus, stores, 0.0, memory);

    (claim_ns(cpus, stores + costs.own, transfer, memory) / without - 1.0) * 100.0
}

/// Of one CPU, in nanoseconds: a claim, and the stores of a unit.
struct Costs {
    own: f64,
    stores: f64,
}

fn main() {
    let cpus = thread::available_parallelism().map_or(1, |n| n.get());
    let memmap = Arc::new(Memmap::new(1024.min(memory::available_mib() / 4), cpus));
    let alone = |cpus, batch| unit_ns(cpus, batch, CLAIMS * batch, &Work::Nothing);
    let with = |cpus, batch| {
        unit_ns(
            cpus,
            batch,
            memmap.nr_units(),
            &Work::Stores(memmap.clone()),
        )
    };
    let transfer = || if cpus > 1 { transfer_ns() } else { 0.0 };
    let [claim, stores, stores_all, line] = least([
        &|| alone(1, OURS),
        &|| bare_ns(1, &memmap),
        &|| bare_ns(cpus, &memmap),
        &transfer,
    ]);
    let costs = Costs {
        own: claim * OURS as f64,
        stores,
    };

    println!(
        "{cpus} CPUs; units of {} struct pages; the least of {ROUNDS} rounds",
        ways::UNIT
    );
    println!(
        "ns: a claim {:.0}; a cache line to the other CPU {line:.0}; the stores of a unit \
         {stores:.0}, with all CPUs {stores_all:.0}\n",
        costs.own
    );
    println!("ns a unit, of one CPU's time");
    println!(
        "{:>8}{:>20}{:>20}",
        "units", "claims alone", "with the stores"
    );
    println!(
        "{:>8}{:>12}{:>8}{:>12}{:>8}",
        "a claim", "1 CPU", "all", "1 CPU", "all"
    );
    for batch in BATCHES {
        let [one, all, with_one, with_all] = least([
            &|| alone(1, batch),
            &|| alone(cpus, batch),
            &|| with(1, batch),
            &|| with(cpus, batch),
        ]);

        println!("{batch:>8}{one:>12.1}{all:>8.1}{with_one:>12.0}{with_all:>8.0}");
    }

    println!("\nns a claim of one unit between its work and the last one's; what all CPUs add");
    println!(
        "{:>8}{:>12}{:>8}{:>12}{:>8}{:>8}",
        "work", "1 CPU", "all", "added", "model", "line"
    );
    for work in WORK {
        let [one, all, line] = least([&|| gap_ns(1, work), &|| gap_ns(cpus, work), &transfer]);
        let own = one + work as f64;
        let model = claim_ns(cpus, own, line, 0.0) - own;

        print!("{work:>8}{one:>12.0}{all:>8.0}");
        println!("{:>12.0}{model:>8.0}{line:>8.0}", all - one);
    }

    println!(
        "\nThe model: % that claims of {OURS} units add, and how many units keep it below 1 %"
    );
    print!("{:>14}{:>14}", "ns a transfer", "memory, GB/s");
    for cpus in MANY {
        print!("{:>14}", format!("{cpus} CPUs"));
    }
    println!();
    for (transfer, gb) in [line, 100.0, 200.0]
        .into_iter()
        .flat_map(|transfer| [None, Some(400.0), Some(200.0)].map(|gb| (transfer, gb)))
    {
        let memory = gb.map_or("no limit".into(), |gb| format!("{gb:.0}"));

        print!("{transfer:>14.0}{memory:>14}");
        for cpus in MANY {
            let of = |units| overhead(cpus, units, &costs, transfer, gb);
            let enough = (0..).map(|n| 1 << n).find(|&units| of(units) < 1.0);

            print!("{:>8.2}{:>6}", of(OURS), enough.unwrap());
        }
        println!();
    }
}
