//! What the command line asks for, done.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::args::{self, Args, Command};
use crate::build_info;
use crate::client::Url;
use crate::config::{self, Config, DEFAULT_TEXT};
use crate::counts::Tier;
use crate::dashboards;
use crate::exporter::Exporter;
use crate::log::{self, Chain};
#[cfg(target_os = "linux")]
use crate::memory;
use crate::owners::Owners;
use crate::port::Port;
use crate::probe::{self, Module, Prober};
use crate::sockets::{self, Reader, Wanted};
use crate::web::SettingsFile;
use crate::{healthcheck, lookup, outside, service_manager, signal, start, web};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is refused; the text has every problem, one a line.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The log could not be set up.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The dashboards cannot be written.
    #[error(transparent)]
    Dashboards(#[from] dashboards::Error),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] web::Error),
    /// systemd has handed over no sockets to listen on.
    #[error(transparent)]
    Activation(#[from] web::ActivationError),
    /// Both configurations are refused; the text has every problem, one a line.
    #[error("{config}\n{web}")]
    Configs {
        /// What is wrong with the configuration.
        config: config::Error,
        /// What is wrong with the web configuration.
        web: config::Error,
    },
    /// Nothing can be read or counted.
    #[error(transparent)]
    Start(#[from] start::Error),
    /// A host cannot be probed.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// The exporter that runs here is not healthy.
    #[error(transparent)]
    Unhealthy(#[from] healthcheck::Error),
    /// No threads, no signals or no standard output.
    #[error("{step}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Does what the command line asks for, and gives the exit status.
///
/// # Errors
/// When it cannot be done.
pub fn execute(args: &Args) -> Result<ExitCode, Error> {
    match &args.command {
        Command::Serve => serve(args).map(|()| ExitCode::SUCCESS),
        Command::CheckConfig => check_config(args),
        Command::PrintDefaultConfig => print(DEFAULT_TEXT),
        Command::PrintVersion => print(&build_info::version_text()),
        Command::Lookup(wanted) => look_up(args, wanted),
        Command::WriteDashboards { output, force } => write_dashboards(output, *force),
        Command::Probe(wanted) => probe(args, wanted),
        Command::CheckHealth { urls, timeout } => check_health(args, urls, *timeout),
    }
}

fn check_config(args: &Args) -> Result<ExitCode, Error> {
    let (config, settings) = load_both(args)?;
    let mut text = format!(
        "{}: valid, {} entries watch {} ports\n",
        config.source,
        config.watch.entries().len(),
        config.watch.ports().len()
    );
    if let Some(file) = settings {
        let settings = file.current();
        text.push_str(&format!(
            "{}: valid, TLS {}, {} users\n",
            file.path().display(),
            if settings.has_tls() { "on" } else { "off" },
            settings.users()
        ));
    }
    print(&text)
}

/// The configuration and, where a file is named, the web configuration. Every problem of both is told.
fn load_both(args: &Args) -> Result<(Config, Option<SettingsFile>), Error> {
    let config = load(args.config_file.as_deref());
    let settings = args
        .web
        .config_file
        .as_deref()
        .map(SettingsFile::load)
        .transpose();
    match (config, settings) {
        (Ok(config), Ok(settings)) => Ok((config, settings)),
        (Err(config), Err(web)) => Err(Error::Configs { config, web }),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error.into()),
    }
}

fn load(file: Option<&Path>) -> Result<Config, config::Error> {
    file.map_or_else(|| Ok(Config::embedded()), Config::load)
}

fn print(text: &str) -> Result<ExitCode, Error> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(source) => Err(Error::Os {
            step: "cannot write to standard output",
            source,
        }),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn write_dashboards(output: &Path, force: bool) -> Result<ExitCode, Error> {
    let result = dashboards::write(output, force)?;
    print(&format!(
        "{}: {} files written, {} as they were; README.md there says how to use them\n",
        output.display(),
        result.written.len(),
        result.unchanged.len()
    ))
}

fn look_up(args: &Args, wanted: &args::Lookup) -> Result<ExitCode, Error> {
    let config = load(args.config_file.as_deref())?;
    let mut seen = BTreeSet::new();
    let ports: Vec<Port> = wanted
        .queries
        .iter()
        .flat_map(|query| query.ports())
        .filter(|port| seen.insert(*port))
        .collect();
    let now = match listeners(args) {
        Ok(now) => Some(now),
        Err(error) => {
            eprintln!(
                "darkport_exporter: what listens now is unknown: {}",
                Chain(&error)
            );
            None
        }
    };
    let asked = wanted.exporter.as_ref().map(|url| {
        let told = lookup::ask(url).map_err(|error| Chain(&error).to_string());
        match &told {
            Ok(told) if !told.has_events() => {
                eprintln!(
                    "darkport_exporter: {url} is older than this program and tells no last events"
                );
            }
            Ok(told) if told.missed() > 0 => eprintln!(
                "darkport_exporter: {url} has missed {} events; the last of a port may be among them",
                told.missed()
            ),
            Ok(_) => {}
            Err(why) => {
                eprintln!("darkport_exporter: {why}; what follows is what lookup sees itself");
            }
        }
        (url, told)
    });
    let told = match &asked {
        Some((url, Ok(told))) => lookup::Exporter::Told { url, told },
        Some((url, Err(why))) => lookup::Exporter::Silent { url, why },
        None => lookup::Exporter::NotAsked,
    };
    let question = lookup::Question {
        ports: &ports,
        registry: &config.registry,
        now: now.as_ref(),
        told,
    };
    print(&match wanted.output {
        args::Output::Table => lookup::table(&question),
        args::Output::Json => lookup::json(&question),
    })
}

fn listeners(args: &Args) -> Result<lookup::Now, sockets::Error> {
    start::take_up_privileges();
    let (mut reader, _) = Reader::open(args.collector.sockets, Vec::new())?;
    let listeners = reader.read(Wanted::Listeners)?.listeners;
    let owners = Owners::new(&args.procfs).resolve(&listeners).owners;
    Ok(listeners.into_iter().zip(owners).collect())
}

fn probe(args: &Args, wanted: &args::Probe) -> Result<ExitCode, Error> {
    let config = load(args.config_file.as_deref())?;
    let module = Arc::new(Module {
        timeout: wanted.timeout,
        retries: wanted.retries,
        rate: wanted.rate,
        concurrency: wanted.concurrency,
        preference: wanted.preference,
        ..Module::new("terminal", wanted.ports.iter())
    });
    let mut progress = outside::Progress::begin();
    let report = Prober::default().probe_freely(&wanted.target, &module, |findings| {
        progress.show(findings.finished(), findings.asked());
    });
    // Before anything else is said, for it shares the terminal.
    drop(progress);
    let report = match report {
        // What a shell gives for a program that SIGINT has ended: 128 and the signal's number.
        Err(probe::Error::Interrupted) => return Ok(ExitCode::from(128 + 2)),
        report => report?,
    };
    if let Some(reason) = &report.hindrance {
        eprintln!("darkport_exporter: {reason}");
    }
    let text = match wanted.output {
        args::Output::Table => outside::table(&wanted.target, &report, &config.registry),
        args::Output::Json => outside::json(&wanted.target, &report),
    };
    let printed = print(&text)?;
    // What could not be asked is no answer.
    Ok(if report.is_success() {
        printed
    } else {
        ExitCode::FAILURE
    })
}

fn check_health(args: &Args, urls: &[Url], timeout: Duration) -> Result<ExitCode, Error> {
    let urls = if urls.is_empty() {
        healthcheck::urls(&args.web.listen, args.web.config_file.as_deref())?
    } else {
        urls.to_vec()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Os {
            step: "cannot wait for an answer",
            source,
        })?;
    let outcome = runtime.block_on(healthcheck::check(&urls, timeout));
    // A name server that does not answer keeps a thread that nobody waits for.
    runtime.shutdown_background();
    print(&format!("{}\n", outcome?))
}

/// Serves until a signal asks for the end. What needs privilege is done first, then privileges are given up, then other
/// threads are started; those that there are by then, the log's and the readers', give up theirs themselves.
fn serve(args: &Args) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    memory::share_one_heap();
    // Before the log, which has a thread: this changes the environment.
    let activated = args.web.systemd_socket.then(web::activated);
    let _log = log::init(args.log.level, args.log.format)?;
    tracing::info!(
        version = build_info::VERSION,
        revision = build_info::REVISION,
        branch = build_info::BRANCH,
        "starting darkport_exporter"
    );
    let (config, settings) = load_both(args)?;
    tracing::info!(
        file = %config.source,
        entries = config.watch.entries().len(),
        ports = config.watch.ports().len(),
        "configuration loaded"
    );
    if let Some(file) = &settings {
        let settings = file.current();
        tracing::info!(
            file = %file.path().display(),
            tls = settings.has_tls(),
            users = settings.users(),
            "web configuration loaded"
        );
    }
    let listeners = match activated {
        Some(activated) => activated?,
        None => web::bind(&args.web.listen)?,
    };
    let own = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    start::take_up_privileges();
    let sampler = start::sampler(&args.collector, &args.procfs, &config, own)?;
    start::give_up_privileges(sampler.counts())?;
    let exporter = Arc::new(Exporter::new(args.config_file.clone(), config, sampler));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(|source| Error::Os {
            step: "cannot start threads",
            source,
        })?;
    let result = runtime.block_on(run(args, exporter, listeners, settings.map(Arc::new)));
    // A scrape that hangs must not keep the process from its end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn run(
    args: &Args,
    exporter: Arc<Exporter>,
    listeners: Vec<std::net::TcpListener>,
    settings: Option<Arc<SettingsFile>>,
) -> Result<(), Error> {
    let os = |step| move |source| Error::Os { step, source };
    let end = signal::shutdown().map_err(os("cannot listen for signals"))?;
    let reloads = signal::reloads().map_err(os("cannot listen for signals"))?;
    tokio::spawn(sample(Arc::clone(&exporter), args.collector.poll_interval));
    tokio::spawn(reload(Arc::clone(&exporter), settings.clone(), reloads));
    let options = web::Options {
        telemetry_path: args.web.telemetry_path.clone(),
        settings,
        has_lifecycle: args.web.enable_lifecycle,
        refusals: Arc::clone(exporter.refusals()),
        max_requests: args.web.max_requests.map_or(0, NonZeroUsize::get),
        dashboard_url: args.web.dashboard_url.clone(),
        ..web::Options::default()
    };
    let end = async {
        let signal = end.await;
        tracing::info!(signal, "ending");
        service_manager::ending();
    };
    web::serve(listeners, exporter, options, end)
        .await
        .map_err(os("cannot serve"))
}

/// Takes the first sample, which makes ready; in the polled tier, one more at each interval, by which it counts.
async fn sample(exporter: Arc<Exporter>, interval: Duration) {
    let mut is_told = false;
    let mut ticker = tokio::time::interval(interval);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        let ticking = Arc::clone(&exporter);
        // A sample that panics is told in the log; the next one is another.
        let _ = tokio::task::spawn_blocking(move || ticking.tick()).await;
        if !exporter.is_ready() {
            continue;
        }
        if !is_told {
            service_manager::ready(&format!("counting in tier {}", exporter.tier().as_str()));
            is_told = true;
        }
        if exporter.tier() != Tier::Polled {
            return;
        }
    }
}

/// Loads the configurations anew whenever SIGHUP asks for it.
async fn reload(
    exporter: Arc<Exporter>,
    settings: Option<Arc<SettingsFile>>,
    mut requests: signal::Reloads,
) {
    loop {
        requests.next().await;
        let tier = exporter.tier().as_str();
        let (exporter, settings) = (Arc::clone(&exporter), settings.clone());
        service_manager::reloading();
        // Whether it went well is told in the log; one that panics is told there too.
        let result =
            tokio::task::spawn_blocking(move || web::reload(&*exporter, settings.as_deref())).await;
        service_manager::reloaded(&match result {
            Ok(Ok(())) => format!("counting in tier {tier}"),
            _ => format!(
                "counting in tier {tier}, by an earlier configuration: the log says what is wrong with the new one"
            ),
        });
    }
}
