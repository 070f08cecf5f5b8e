// SPDX-License-Identifier: GPL-2.0

//! How long a struct page takes: one after the other, as C does it, and by the runs of `stamp.rs`.
//!
//! Neither criterion nor divan: both time a small function over and over until its time is known
//! well, one candidate after the other. Here a call takes a second and what it costs is memory, so
//! the candidates have to take turns, or a machine that slows down would decide between them; all
//! threads have to start at a time, and what counts is when the last one is done. That leaves
//! nothing for either to do but to print.
//!
//! See `README.md` for what the table means.

#[path = "../../../../mm/memmap_async/stamp.rs"]
mod stamp;

mod memory;
mod report;
mod ways;

use memory::Memmap;
use report::Sample;
use std::{
    env, fs,
    hint::black_box,
    path::PathBuf,
    process::{self, Command},
    sync::Barrier,
    thread,
    time::Instant,
};
use ways::{Way, UNIT};

/// What `--help` says.
const USAGE: &str = "\
Usage: cargo bench -- [--quick] [--size MIB] [--rounds N] [--json FILE] [--png FILE]

  --quick       256 MiB and 3 rounds: to see that it works
  --size MIB    of struct pages (default 2048, or a quarter of the memory that is free)
  --rounds N    of all candidates in turn (default 9)
  --json FILE   raw figures (default stamp.json in Cargo's directory for such)
  --png FILE    a picture of them, by benches/stamp/picture.py, which wants matplotlib";

struct Options {
    mib: usize,
    rounds: usize,
    json: PathBuf,
    png: Option<PathBuf>,
}

fn usage(error: &str) -> ! {
    if error.is_empty() {
        println!("{USAGE}");
        process::exit(0);
    }
    eprintln!("error: {error}\n{USAGE}");
    process::exit(2);
}

fn options() -> Options {
    let mut options = Options {
        mib: 2048.min(memory::available_mib() / 4),
        rounds: 9,
        json: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("stamp.json"),
        png: None,
    };
    let mut args = env::args().skip(1);

    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .unwrap_or_else(|| usage(&format!("{arg} wants a value")))
        };
        let number = |value: String| match value.parse() {
            Ok(n) if n > 0 => n,
            _ => usage(&format!("{value} is no number that makes sense")),
        };

        match arg.as_str() {
            // Cargo says so.
            "--bench" => {}
            "--quick" => (options.mib, options.rounds) = (256, 3),
            "--size" => options.mib = number(value()),
            "--rounds" => options.rounds = number(value()),
            "--json" => options.json = value().into(),
            "--png" => options.png = Some(value().into()),
            "--help" | "-h" => usage(""),
            _ => usage(&format!("unknown argument {arg}")),
        }
    }
    options
}

/// Seconds for which this thread had a CPU.
fn cpu_time() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };

    // SAFETY: It writes a `timespec`, to ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Initialises all of `memmap` by `way`, each thread its own part.
fn pass(way: &Way, memmap: &Memmap, threads: usize) -> Sample {
    let barrier = Barrier::new(threads);
    let times: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;

                scope.spawn(move || {
                    memory::bind(thread, threads);
                    let units = memmap.part(thread, threads);
                    let inputs = ways::Inputs::new();

                    barrier.wait();
                    let (start, had) = (Instant::now(), cpu_time());
                    for unit in units {
                        // SAFETY: There are `UNIT` pages, and no other thread has this unit.
                        unsafe { (way.unit)(memmap.unit(unit), black_box(&inputs)) };
                    }
                    (start, Instant::now(), cpu_time() - had)
                })
            })
            .collect();

        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let start = times.iter().map(|(start, ..)| *start).min().unwrap();
    let end = times.iter().map(|(_, end, _)| *end).max().unwrap();
    let cpu: f64 = times.iter().map(|(.., cpu)| cpu).sum();
    let pages_e9 = (memmap.nr_units() * UNIT) as f64 / 1e9;

    Sample {
        wall: (end - start).as_secs_f64() / pages_e9,
        cpu: cpu / pages_e9,
    }
}

fn main() {
    let options = options();
    let cpus = thread::available_parallelism().map_or(1, |n| n.get());
    let machine = report::Machine::new(cpus);
    let ways = ways::all();
    let memmap = Memmap::new(options.mib, cpus);
    let mut threads = vec![1, cpus];

    threads.dedup();
    ways::check(&ways);
    println!("{machine}");
    println!(
        "{} MiB of struct pages of 64 bytes, {UNIT} a call, {} MiB of it in huge pages; \
         {} rounds in turn",
        options.mib, memmap.huge_mib, options.rounds
    );

    // One round for nothing: the clock of the CPUs, the code, what the memory is.
    let mut samples = vec![vec![Vec::new(); threads.len()]; ways.len()];
    for round in 0..=options.rounds {
        let mut turns: Vec<_> = (0..ways.len())
            .flat_map(|way| (0..threads.len()).map(move |n| (way, n)))
            .collect();

        // No way always comes after the same other way.
        if round % 2 == 1 {
            turns.reverse();
        }
        for (way, n) in turns {
            let sample = pass(&ways[way], &memmap, threads[n]);

            if round > 0 {
                samples[way][n].push(sample);
            }
        }
    }

    let report = report::Report {
        machine,
        ways,
        threads,
        samples,
        mib: options.mib,
        huge_mib: memmap.huge_mib,
        rounds: options.rounds,
    };

    print!("{report}");
    if let Err(error) = fs::write(&options.json, report.json()) {
        eprintln!("error: {}: {error}", options.json.display());
        process::exit(1);
    }
    println!("\nraw figures: {}", options.json.display());
    if let Some(png) = &options.png {
        let status = Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/benches/stamp/picture.py"
            ))
            .args([&options.json, png])
            .status();

        if !status.is_ok_and(|status| status.success()) {
            eprintln!("error: no picture: is there a python3 with matplotlib in the PATH?");
            process::exit(1);
        }
        println!("picture: {}", png.display());
    }
}
