// SPDX-License-Identifier: GPL-2.0

//! What was measured: as a table, as JSON, and which store the kernel had best use.

use crate::ways::{Kind, Page, Role, Way};
use std::{
    env,
    fmt::{self, Write},
    fs,
    process::Command,
};

/// A candidate that takes so much longer than the fastest is as good as that.
const CLOSE: f64 = 1.1;

/// More than this was running when the benchmark began: other work, that is.
const BUSY: f64 = 0.5;

pub(crate) struct Machine {
    cpus: usize,
    cpu: String,
    kernel: String,
    load: f64,
    date: String,
}

impl Machine {
    pub(crate) fn new(cpus: usize) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or(env::consts::ARCH, |(_, name)| name);

        Self {
            cpus,
            cpu: cpu.into(),
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            date: Command::new("date")
                .args(["-u", "+%Y-%m-%d %H:%M UTC"])
                .output()
                .map_or_else(
                    |_| String::new(),
                    |date| String::from_utf8_lossy(&date.stdout).trim().into(),
                ),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpus, cpu, kernel, ..
        } = self;

        write!(f, "{cpus} x {cpu}, Linux {kernel}")
    }
}

/// Nanoseconds a page: how long it took, and for how long all threads together had a CPU. The more
/// other work there is, the more they differ.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) ways: Vec<Way>,
    /// How many there were: one, and all.
    pub(crate) threads: Vec<usize>,
    /// For each way, for each number of threads, for each round.
    pub(crate) samples: Vec<Vec<Vec<Sample>>>,
    pub(crate) mib: usize,
    pub(crate) huge_mib: usize,
    pub(crate) rounds: usize,
}

/// Median, least and greatest.
#[derive(Clone, Copy)]
struct Figures {
    median: f64,
    min: f64,
    max: f64,
}

impl Figures {
    fn new(samples: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = samples.collect();
        sorted.sort_by(f64::total_cmp);
        let nr = sorted.len();

        Self {
            median: (sorted[(nr - 1) / 2] + sorted[nr / 2]) / 2.0,
            min: sorted[0],
            max: sorted[nr - 1],
        }
    }

    fn gb_per_s(self) -> f64 {
        size_of::<Page>() as f64 / self.median
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Device => "device pages: no word moves",
            Kind::ListHead => "pages of RAM: the list head moves",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Kind::Device => "device",
            Kind::ListHead => "list_head",
        }
    }
}

impl Role {
    fn key(self) -> &'static str {
        match self {
            Role::OneByOne => "one_by_one",
            Role::Candidate => "candidate",
            Role::Other => "other",
            Role::Limit => "limit",
            Role::Fill => "fill",
        }
    }

    /// What stands in front of it in the table.
    fn mark(self) -> char {
        match self {
            Role::OneByOne => ' ',
            Role::Candidate => '*',
            Role::Other => '+',
            Role::Limit | Role::Fill => '-',
        }
    }
}

/// What is said of a candidate store.
struct Verdict<'a> {
    kind: Kind,
    threads: usize,
    candidate: &'a str,
    /// The fastest that initialises such pages, and the candidate's median as a multiple of its.
    fastest: (&'a str, f64),
    /// The same for the fastest that writes zeroes and initialises nothing.
    fill: (&'a str, f64),
    /// It is the better one of the candidates.
    best: bool,
}

impl Report {
    fn figures(&self, way: usize, n: usize) -> Figures {
        Figures::new(self.samples[way][n].iter().map(|sample| sample.wall))
    }

    fn cpu(&self, way: usize, n: usize) -> f64 {
        Figures::new(self.samples[way][n].iter().map(|sample| sample.cpu)).median
    }

    /// The ways for pages of a kind.
    fn of(&self, kind: Kind) -> impl Iterator<Item = usize> + Clone + '_ {
        (0..self.ways.len()).filter(move |&way| self.ways[way].kind == kind)
    }

    fn fastest(&self, ways: impl Iterator<Item = usize>, n: usize) -> usize {
        let median = |way: &usize| self.figures(*way, n).median;

        ways.min_by(|a, b| median(a).total_cmp(&median(b))).unwrap()
    }

    /// How many times as fast as one page after the other.
    fn gain(&self, way: usize, n: usize) -> f64 {
        let one_by_one = self
            .of(self.ways[way].kind)
            .find(|&way| self.ways[way].role == Role::OneByOne)
            .unwrap();

        self.figures(one_by_one, n).median / self.figures(way, n).median
    }

    fn verdicts(&self) -> Vec<Verdict<'_>> {
        let mut verdicts = vec![];
        let (fills, ways): (Vec<_>, Vec<_>) =
            (0..self.ways.len()).partition(|&way| self.ways[way].role == Role::Fill);

        for kind in [Kind::Device, Kind::ListHead] {
            for (n, &threads) in self.threads.iter().enumerate() {
                let candidates = self
                    .of(kind)
                    .filter(|&way| self.ways[way].role == Role::Candidate);
                let of_kind = ways
                    .iter()
                    .copied()
                    .filter(|&way| self.ways[way].kind == kind);
                let fastest = self.fastest(of_kind, n);
                let fill = self.fastest(fills.iter().copied(), n);
                let best = self.fastest(candidates.clone(), n);

                let against = |way: usize, other: usize| {
                    let ratio = self.figures(way, n).median / self.figures(other, n).median;

                    (self.ways[other].name, ratio)
                };

                verdicts.extend(candidates.map(|way| Verdict {
                    kind,
                    threads,
                    candidate: self.ways[way].name,
                    fastest: against(way, fastest),
                    fill: against(way, fill),
                    best: way == best,
                }));
            }
        }
        verdicts
    }

    /// All of it. Written by hand: there is little of it, and all strings are plain ones.
    pub(crate) fn json(&self) -> String {
        let mut json = String::new();
        let Machine {
            cpus,
            cpu,
            kernel,
            load,
            date,
        } = &self.machine;
        let ways: Vec<_> = (0..self.ways.len())
            .flat_map(|way| (0..self.threads.len()).map(move |n| (way, n)))
            .map(|(way, n)| {
                let Way {
                    name, kind, role, ..
                } = self.ways[way];
                let figures = self.figures(way, n);
                let samples = &self.samples[way][n];
                let wall: Vec<_> = samples.iter().map(|sample| sample.wall).collect();
                let cpu: Vec<_> = samples.iter().map(|sample| sample.cpu).collect();

                format!(
                    "{{\"kind\": {:?}, \"way\": {name:?}, \"role\": {:?}, \"threads\": {}, \
                     \"median\": {}, \"min\": {}, \"max\": {}, \"gb_per_s\": {}, \"gain\": {}, \
                     \"cpu\": {}, \"ns_per_page\": {wall:?}, \"cpu_ns_per_page\": {cpu:?}}}",
                    kind.key(),
                    role.key(),
                    self.threads[n],
                    figures.median,
                    figures.min,
                    figures.max,
                    figures.gb_per_s(),
                    self.gain(way, n),
                    self.cpu(way, n),
                )
            })
            .collect();
        let verdicts: Vec<_> = self
            .verdicts()
            .iter()
            .map(|verdict| {
                let Verdict {
                    kind,
                    threads,
                    candidate,
                    fastest: (fastest, ratio),
                    fill: (fill, fill_ratio),
                    best,
                } = verdict;

                format!(
                    "{{\"kind\": {:?}, \"threads\": {threads}, \"candidate\": {candidate:?}, \
                     \"fastest\": {fastest:?}, \"ratio\": {ratio}, \"fill\": {fill:?}, \
                     \"fill_ratio\": {fill_ratio}, \"best\": {best}, \"close\": {}}}",
                    kind.key(),
                    *ratio <= CLOSE,
                )
            })
            .collect();

        writeln!(
            json,
            "{{\n\"machine\": {{\"cpus\": {cpus}, \"cpu\": {cpu:?}, \"kernel\": {kernel:?}, \
             \"load\": {load}, \"date\": {date:?}}},\n\"mib\": {}, \"huge_mib\": {}, \"rounds\": {}, \
             \"bytes_per_page\": {},\n\"ways\": [\n  {}\n],\n\"verdicts\": [\n  {}\n]\n}}",
            self.mib,
            self.huge_mib,
            self.rounds,
            size_of::<Page>(),
            ways.join(",\n  "),
            verdicts.join(",\n  "),
        )
        .unwrap();
        json
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:28}", "ns a struct page")?;
        for &threads in &self.threads {
            let s = if threads == 1 { "" } else { "s" };

            write!(f, "{:^50}", format!("{threads} thread{s}"))?;
        }
        write!(f, "\n{:28}", "")?;
        for _ in &self.threads {
            write!(
                f,
                "{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}  ",
                "median", "min", "max", "GB/s", "gain", "CPU"
            )?;
        }
        writeln!(f)?;

        for kind in [Kind::Device, Kind::ListHead] {
            writeln!(f, "\n{}", kind.name())?;
            for way in self.of(kind) {
                let Way { name, role, .. } = self.ways[way];

                write!(f, "{} {name:26}", role.mark())?;
                for n in 0..self.threads.len() {
                    let Figures { median, min, max } = self.figures(way, n);
                    let gb_per_s = self.figures(way, n).gb_per_s();
                    let gain = self.gain(way, n);
                    let cpu = self.cpu(way, n);

                    write!(
                        f,
                        "{median:>8.2}{min:>8.2}{max:>8.2}{gb_per_s:>8.1}{gain:>6.2} x{cpu:>8.2}  "
                    )?;
                }
                writeln!(f)?;
            }
        }
        writeln!(
            f,
            "\nCPU: the time for which all threads had one, together (ns a page)\n\
             * stamp.rs in the kernel, by one of its stores; + what the kernel might do instead; \
             - what it\ncannot do, or what initialises nothing: the machine's limit\n\n\
             Against the fastest that initialises such pages, and the fastest that writes zeroes:"
        )?;
        for verdict in self.verdicts() {
            let Verdict {
                kind,
                threads,
                candidate,
                fastest: (fastest, ratio),
                fill: (fill, fill_ratio),
                best,
            } = verdict;
            let threads = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
            let close = if ratio <= CLOSE { "" } else { "not " };

            writeln!(
                f,
                "  {:10}{threads:>11}: {candidate:21} {close:>4}within 10 %: {ratio:.2} x \
                 {fastest}, {fill_ratio:.2} x {fill}{}",
                kind.key().replace('_', " "),
                if best { "; the best store" } else { "" },
            )?;
        }

        let verdicts = self.verdicts();
        let everywhere: Vec<_> = (self.ways.iter())
            .filter(|way| way.role == Role::Candidate && way.kind == Kind::Device)
            .map(|way| way.name)
            .filter(|name| {
                let mut of_it = verdicts.iter().filter(|verdict| verdict.candidate == *name);

                of_it.all(|verdict| verdict.fastest.1 <= CLOSE)
            })
            .collect();
        writeln!(
            f,
            "  Within 10 % in all cases: {}",
            if everywhere.is_empty() {
                "none".into()
            } else {
                everywhere.join("; ")
            }
        )?;

        if self.machine.load > BUSY {
            writeln!(
                f,
                "\nThe machine was busy (load {:.1}) when this began: these times mean little.\n\
                 Look at the CPU time then; of that, too, other work takes its share of caches and \
                 memory.",
                self.machine.load
            )?;
        }
        Ok(())
    }
}
