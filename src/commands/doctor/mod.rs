//! `mrpo doctor`: what is wrong with a configuration, a data directory and this machine. It changes nothing, so that it may be asked
//! while a server works.

mod contents;
mod database;
mod machine;
mod place;

use std::io::Write;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::config::ServeArgs;

/// How many things of one kind are named; the others are counted.
const MAX_NAMED: usize = 10;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Grade {
    /// As it should be.
    Ok,
    /// Works, and may not for long.
    Warn,
    /// Damaged, or keeps a server from working.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    grade: Grade,
    /// What was looked at, in a word.
    check: &'static str,
    /// What was found.
    what: String,
    /// The way out; null where nothing is wrong.
    to_do: Option<String>,
}

/// All findings so far.
#[derive(Debug, Default, Serialize)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn ok(&mut self, check: &'static str, what: impl Into<String>) {
        self.findings.push(Finding { grade: Grade::Ok, check, what: what.into(), to_do: None });
    }

    fn warn(&mut self, check: &'static str, what: impl Into<String>, to_do: impl Into<String>) {
        self.findings.push(Finding { grade: Grade::Warn, check, what: what.into(), to_do: Some(to_do.into()) });
    }

    fn fail(&mut self, check: &'static str, what: impl Into<String>, to_do: impl Into<String>) {
        self.findings.push(Finding { grade: Grade::Fail, check, what: what.into(), to_do: Some(to_do.into()) });
    }

    /// The first of many things that fail, one line each, and how many there are.
    fn fail_each(&mut self, check: &'static str, found: &[String], to_do: &str) {
        found.iter().take(MAX_NAMED).for_each(|what| self.fail(check, what, to_do));
        if found.len() > MAX_NAMED {
            self.fail(check, format!("and {} more", found.len() - MAX_NAMED), to_do);
        }
    }

    fn worst(&self) -> Grade {
        self.findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Ok)
    }

    fn n(&self, grade: Grade) -> usize {
        self.findings.iter().filter(|finding| finding.grade == grade).count()
    }
}

/// Looks at everything and prints what it finds.
///
/// # Errors
/// If anything fails; warnings are none.
pub(crate) fn doctor(args: ServeArgs, json: bool) -> Result<()> {
    let mut report = Report::default();
    let data_dir = std::path::absolute(&args.data_dir)?;
    let reserve_bytes = args.min_free_disk;
    let (listen, has_tls) = (args.listen, args.tls_cert.is_some());
    let config = machine::config(args, &mut report);
    if place::look(&data_dir, reserve_bytes, &mut report) {
        let is_served = place::server(&data_dir, listen, has_tls, &mut report);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(database::look(&data_dir, is_served, config.as_ref(), &mut report));
    }
    machine::look(&mut report);
    print(&report, json)?;
    if report.worst() == Grade::Fail {
        bail!("{} of {} checks fail", report.n(Grade::Fail), report.findings.len());
    }
    Ok(())
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        let whole = serde_json::json!({"status": report.worst(), "findings": report.findings});
        writeln!(out, "{whole}")?;
        return Ok(());
    }
    for Finding { grade, check, what, to_do } in &report.findings {
        let word = match grade {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "fail",
        };
        let to_do = to_do.as_ref().map_or_else(String::new, |to_do| format!(" ({to_do})"));
        writeln!(out, "{word:<5} {check:<12} {what}{to_do}")?;
    }
    Ok(())
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}
