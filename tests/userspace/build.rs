// SPDX-License-Identifier: GPL-2.0

//! Writes a weakened copy of a file of the engine for each line of `tests/mutations/table.rs`, and a
//! test module around each of them, with the files and the models that belong to it, for
//! `tests/mutations/main.rs`. Says to these files which options of the kernel are set.

#[path = "tests/mutations/table.rs"]
mod table;

use std::{env, fmt::Write, fs, path::PathBuf};

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let mut tests = String::new();

    println!("cargo::rerun-if-changed=tests/mutations/table.rs");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ARCH").unwrap() == "x86_64" {
        println!("cargo::rustc-cfg=CONFIG_X86_64");
    }

    // What is compiled for a mutation besides its models: the file itself, and those it works with.
    const ENGINE: &[&str] = &["claim", "job", "pfn"];

    for (file, files, models, mutations) in [
        ("claim", ENGINE, "mod.rs", table::CLAIM),
        ("job", ENGINE, "mod.rs", table::JOB),
        ("pfn", ENGINE, "mod.rs", table::PFN),
        ("stamp", &["stamp"], "stamp.rs", table::STAMP),
    ] {
        let models = here.join("tests/models").join(models);
        let path_of = |file: &str| here.join(format!("../../mm/memmap_async/{file}.rs"));
        let source = fs::read_to_string(path_of(file)).unwrap();

        println!("cargo::rerun-if-changed={}", path_of(file).display());
        for &(name, from, to, model, red) in mutations {
            let mutant = out.join(format!("{name}.rs"));

            writeln!(tests, "mod {name} {{").unwrap();
            match source.matches(from).count() {
                1 => {
                    fs::write(&mutant, source.replace(from, to)).unwrap();
                    for &other in files {
                        let path = match other == file {
                            true => mutant.clone(),
                            false => path_of(other),
                        };

                        writeln!(
                            tests,
                            "#[allow(unused, clippy::all)] #[path = {path:?}] mod {other};"
                        )
                        .unwrap();
                    }
                    writeln!(
                        tests,
                        "#[allow(dead_code)] #[path = {models:?}] mod models;"
                    )
                    .unwrap();
                    writeln!(tests, "#[test] fn goes_red() {{").unwrap();
                    writeln!(
                        tests,
                        "crate::goes_red({name:?}, models::{model}, {red:?});"
                    )
                    .unwrap();
                }
                n => {
                    let why = format!("{file}.rs has {from:?} {n} times, not once: mend table.rs");

                    writeln!(tests, "#[test] fn goes_red() {{").unwrap();
                    writeln!(tests, "panic!(\"{{}}\", {why:?});").unwrap();
                }
            }
            writeln!(tests, "}} }}").unwrap();
        }
    }
    fs::write(out.join("mutants.rs"), tests).unwrap();
}
