//! What was done and seen, judged and written down.

use std::fmt::Write as _;
use std::time::Duration;

use darkport_exporter::build_info;
use darkport_exporter::counts::Tier;

use crate::SCRAPES;
use crate::ledger::Pages;
use crate::observer::Observer;
use crate::subject::Holdings;

/// The pool's blocking threads, its workers, and those with a name: the pool adds one whenever all are at work at once.
const MOST_THREADS: u64 = 16 + 2 + 6;

/// How much more resident memory the last quarter may show at the most than the first, in a run of [`LONG`] or more: in a
/// shorter one, caches still fill and the allocator has not found its size.
const MORE_KILOBYTES: u64 = 1024;
const LONG: Duration = Duration::from_secs(600);

/// What came of the whole run.
#[derive(Debug)]
pub(crate) struct Report {
    lasts: Duration,
    tiers: [Column; 2],
    problems: Vec<String>,
}

/// What came of one exporter.
#[derive(Debug, Default)]
struct Column {
    /// Between checkpoints, when.
    measured: Vec<(Duration, Holdings)>,
    /// At checkpoints.
    rested: Vec<Holdings>,
    observer: Observer,
    compared: u64,
    processor_seconds: Option<f64>,
    warnings: usize,
}

/// The lowest and highest of a quarter.
#[derive(Clone, Copy, Debug)]
struct Extent {
    least: u64,
    most: u64,
}

impl Report {
    pub(crate) fn new(lasts: Duration) -> Self {
        Self {
            lasts,
            tiers: Default::default(),
            problems: Vec::new(),
        }
    }

    fn column(&mut self, tier: Tier) -> &mut Column {
        &mut self.tiers[usize::from(tier == Tier::Netlink)]
    }

    pub(crate) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    pub(crate) fn measured(&mut self, tier: Tier, when: Duration, holdings: Holdings) {
        self.column(tier).measured.push((when, holdings));
    }

    pub(crate) fn checkpoint(
        &mut self,
        tier: Tier,
        when: Duration,
        outcome: Result<Holdings, Vec<String>>,
    ) {
        match outcome {
            Ok(holdings) => self.column(tier).rested.push(holdings),
            Err(differences) => {
                for difference in differences {
                    self.problem(format!("{tier} after {} s: {difference}", when.as_secs()));
                }
            }
        }
    }

    pub(crate) fn ended(
        &mut self,
        tier: Tier,
        observer: Observer,
        compared: u64,
        processor_seconds: Option<f64>,
        log: &[String],
    ) {
        let unusual = |line: &&String| line.contains("level=ERROR") || line.contains("panicked");
        for line in log.iter().filter(unusual).take(5) {
            // A refused configuration is told as an error, and was asked for.
            if !line.contains("reload") && !line.contains("configuration") {
                self.problem(format!("{tier}: {line}"));
            }
        }
        if observer.failures > 0 {
            self.problem(format!(
                "{tier}: {} failures in scrapes, the first: {:#?}",
                observer.failures, observer.first_failures
            ));
        }
        let column = self.column(tier);
        column.observer = observer;
        column.compared = compared;
        column.processor_seconds = processor_seconds;
        column.warnings = log
            .iter()
            .filter(|line| line.contains("level=WARN"))
            .count();
    }

    /// Everything that is not as it has to be.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        for (tier, column) in self.named() {
            if column.rested.is_empty() {
                problems.push(format!("{tier}: no checkpoint was passed"));
            }
            let [first, .., last] = column.quarters(|holdings| holdings.resident_kilobytes);
            if self.lasts >= LONG && last.most > first.most + MORE_KILOBYTES {
                problems.push(format!(
                    "{tier}: {} kB in the first quarter became {} kB in the last",
                    first.most, last.most
                ));
            }
            let [.., last] = column.quarters(|holdings| holdings.threads);
            if last.most > MOST_THREADS {
                problems.push(format!("{tier}: {} threads in the last quarter", last.most));
            }
        }
        problems
    }

    fn named(&self) -> impl Iterator<Item = (Tier, &Column)> {
        [Tier::Kernel, Tier::Netlink].into_iter().zip(&self.tiers)
    }

    pub(crate) fn markdown(&self, pages: &Pages) -> String {
        let mut text = String::new();
        let seconds = self.lasts.as_secs();
        let profile = if cfg!(debug_assertions) {
            "development"
        } else {
            "release"
        };
        let _ = writeln!(
            text,
            "{} of scrapes every {} ms of two exporters at once ({profile} build, version {}), Linux {}.\n\n\
             | done | times |\n|---|---:|",
            format_args!("{seconds} seconds"),
            SCRAPES.as_millis(),
            build_info::VERSION,
            kernel_release(),
        );
        for (deed, times) in &pages.deeds {
            let _ = writeln!(text, "| {deed} | {times} |");
        }
        let _ = writeln!(text, "\n| seen | kernel | netlink |\n|---|---:|---:|");
        let mut row = |name: &str, cell: &dyn Fn(&Column) -> String| {
            let [kernel, netlink] = self.tiers.each_ref().map(cell);
            let _ = writeln!(text, "| {name} | {kernel} | {netlink} |");
        };
        row("scrapes", &|column| column.observer.took.len().to_string());
        row(
            "that failed, showed a failed collector, lost events or a counter that fell",
            &|column| column.observer.failures.to_string(),
        );
        row(
            "that say that an owner is unknown: a brief listener was gone before it was looked for",
            &|column| column.observer.without_an_owner.to_string(),
        );
        for (name, share) in [("median", 0.5), ("99th percentile", 0.99), ("longest", 1.0)] {
            row(&format!("scrape, {name}, with its connection"), &|column| {
                format!("{:.1} ms", column.observer.quantile(share) * 1000.0)
            });
        }
        row("checkpoints at which all was equal", &|column| {
            column.rested.len().to_string()
        });
        row("values compared there", &|column| {
            column.compared.to_string()
        });
        for (index, name) in ["first", "second", "third", "last"].into_iter().enumerate() {
            row(&format!("resident memory, {name} quarter"), &|column| {
                let extent = column.quarters(|holdings| holdings.resident_kilobytes)[index];
                format!("{}–{} kB", extent.least, extent.most)
            });
        }
        row("its slope", &|column| {
            format!("{:+.0} kB an hour", column.slope())
        });
        row("threads, first and last quarter", &|column| {
            let [first, .., last] = column.quarters(|holdings| holdings.threads);
            format!(
                "{}–{}, {}–{}",
                first.least, first.most, last.least, last.most
            )
        });
        row("file descriptors at every checkpoint", &|column| {
            let of: Vec<u64> = column
                .rested
                .iter()
                .map(|rested| rested.descriptors)
                .collect();
            match (of.iter().min(), of.iter().max()) {
                (Some(least), Some(most)) if least == most => most.to_string(),
                (least, most) => format!("{least:?}–{most:?}"),
            }
        });
        row("processor time", &|column| match column.processor_seconds {
            Some(used) => format!(
                "{used:.0} s, {:.1} % of a core",
                used / seconds as f64 * 100.0
            ),
            None => "unknown".into(),
        });
        row("warnings in the log", &|column| column.warnings.to_string());
        let problems = self.problems();
        let _ = writeln!(
            text,
            "\nProblems: {}.",
            if problems.is_empty() { "none" } else { "some" }
        );
        for problem in problems {
            let _ = writeln!(text, "- {problem}");
        }
        text
    }
}

impl Column {
    /// Of each quarter of what follows the first tenth, in which caches fill and the allocator finds its size.
    fn quarters(&self, of: impl Fn(&Holdings) -> u64) -> [Extent; 4] {
        let warm = &self.measured[self.measured.len() / 10..];
        std::array::from_fn(|quarter| {
            let part = &warm[warm.len() * quarter / 4..warm.len() * (quarter + 1) / 4];
            let values = part.iter().map(|(_, holdings)| of(holdings));
            Extent {
                least: values.clone().min().unwrap_or(0),
                most: values.max().unwrap_or(0),
            }
        })
    }

    /// Of resident memory after the first tenth, by least squares, in kB an hour.
    fn slope(&self) -> f64 {
        let warm = &self.measured[self.measured.len() / 10..];
        let points: Vec<(f64, f64)> = warm
            .iter()
            .map(|(when, holdings)| {
                (
                    when.as_secs_f64() / 3600.0,
                    holdings.resident_kilobytes as f64,
                )
            })
            .collect();
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let covariance: f64 = points
            .iter()
            .map(|point| (point.0 - x) * (point.1 - y))
            .sum();
        let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        covariance / variance
    }
}

impl Observer {
    /// In seconds.
    fn quantile(&self, share: f64) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(index).map_or(f64::NAN, Duration::as_secs_f64)
    }
}

fn kernel_release() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    text.trim().to_owned()
}
