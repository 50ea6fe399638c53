//! darkport_exporter counts what happens on the ports that should be silent, and says who listens there.
//!
//! This page is the map of the house. Read it before moving a wall; when a wall moves, it moves here too.
//!
//! # The way data takes
//!
//! ```text
//!  argv ─ args ─┐                        ┌ sockets     netlink │ netstat2 │ procfs  who listens, what is connected
//!  file ────────┴→ config ─→ WatchSet    ├ namespaces  a thread that enters them  who listens elsewhere
//!                    │          │        ├ owners      /proc, control groups      whose socket it is
//!                    │          │        ├ counts      the tiers                  what came, what was opened
//!                    │          │        ├ audit       /proc/net/snmp             what the host itself counted
//!                    │          └──────→ Sampler ── sample() ──→ Snapshot ─→ metrics::encode ─→ web /metrics
//!                    │                      │                       └→ api ─────────────→ web /api/v1/ports, /map
//!                    │                      └─→ events (log)
//!                    ├→ registry (IANA) ────┘
//!                    └→ probe ─→ metrics::encode_probe ─→ web /probe
//! ```
//!
//! One direction, no going back: readers do not know metrics, metrics does not know how a number was read, HTTP knows
//! neither. A scrape is one call of [`sampler::Sampler::sample`] and one of [`metrics::encode`]. Nothing runs in the
//! background but what drains events, and, in the polled tier, a ticker that calls the same `sample()`.
//!
//! # The rooms
//!
//! | room | what it does | what it must not know |
//! |---|---|---|
//! | [`args`] | the command line, and only that; names clap | what its values are for |
//! | [`command`] | does what the command line asks for | how any of it is done |
//! | [`start`] | chooses reader and tier, and says why not the better ones | metrics, HTTP |
//! | [`config`] | a YAML file → [`config::Config`], valid by construction, every problem at once | sockets, metrics, HTTP |
//! | [`yaml`] | a YAML file → a tree with places, decoded with every problem noted | what a key means |
//! | [`duration`] | durations, read as Prometheus writes them | what they are for |
//! | [`port`] | ports, ranges, blocks, sets of ports | anything but the standard library |
//! | [`registry`] | IANA: what is this port? | watch sets, sockets |
//! | [`watch`] | whose port it is, who may listen there | files, metrics |
//! | [`sockets`] | the socket table, by several readers behind one contract | configuration, owners, metrics |
//! | [`namespaces`] | the socket tables of other network namespaces | owners, configuration, metrics |
//! | [`owners`] | socket → process, user, unit | configuration, metrics |
//! | [`counts`] | the tiers of counting, a closed set | configuration beyond the watch set, metrics |
//! | [`audit`] | the host's own counters of the same | what we counted |
//! | [`sampler`] | asks the readers, returns a snapshot; never fails | metrics, HTTP |
//! | [`events`] | listeners that open and close, told in the log, the last of each port remembered | metrics, HTTP |
//! | [`snapshot`] | what was seen at one moment: plain data | where it comes from |
//! | [`metrics`] | [`metrics::FAMILIES`], the one table of families, and the encoding; names prometheus | readers, HTTP |
//! | [`api`] | a snapshot, and what is known of each port, as JSON; names serde_json | readers, HTTP |
//! | [`exporter`] | one configuration and one sampler behind a lock; reload | HTTP |
//! | [`refusals`] | what the web front turned away: counted there, shown by the exporter | who counts, who shows |
//! | [`dashboards`] | writes the bundled dashboards, rules and provisioning files | anything else |
//! | [`lookup`] | the answer to `lookup`, for which it asks a running exporter | where it is printed |
//! | [`probe`] | the outside view: what a port answers over the network, and who may be asked | who listens, metrics, HTTP |
//! | [`outside`] | the answer to `probe`, and how far it is | how ports are asked |
//! | [`web`] | routes and connections; names hyper | readers, metrics |
//! | [`client`] | asks a running exporter; names hyper | what is asked for, and what an answer means |
//! | [`healthcheck`] | whether a running exporter is healthy | how it is asked |
//! | [`privileges`] | capabilities: what is held, and giving it up | what they are wanted for |
//! | [`service_manager`] | tells systemd: ready, reloading, ending | what it tells of |
//! | [`log`], [`signal`], [`build_info`] | the log, the signals, what the binary was built from | everything else |
//!
//! # What always holds
//!
//! 1. Observer only: it binds no watched port, runs no other program, drops, delays and changes no packet. What a probe
//!    sends goes only to whom the configuration or a person at a terminal names.
//! 2. Absent, not zero: a zero means that somebody looked and found none. `None` is never turned into 0.
//! 3. Nothing remote creates a series.
//! 4. Counters never go backwards while the process lives; a reload keeps them.
//! 5. A reader that fails costs its own series, never the scrape. A short socket table is an error, not silence: every
//!    table is held against the exporter's own listening sockets.
//! 6. Cost follows what is watched, not how busy the host is: of a scrape, in tier `kernel`. Below it the kernel walks its table
//!    of connections once a scrape, and filters.
//! 7. `unsafe` is forbidden but in `memory`, which maps the kernel's counters and speaks with the allocator.

// A panic on anything from outside is a defect, so the ways to one are named.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

pub mod api;
pub mod args;
pub mod audit;
pub mod build_info;
pub mod client;
pub mod command;
pub mod config;
pub mod counts;
pub mod dashboards;
pub mod duration;
pub mod events;
pub mod exporter;
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub mod fuzzing;
pub mod healthcheck;
pub mod log;
pub mod lookup;
#[cfg(target_os = "linux")]
mod memory;
pub mod metrics;
pub mod namespaces;
pub mod outside;
pub mod owners;
pub mod port;
pub mod privileges;
pub mod probe;
pub mod refusals;
pub mod registry;
pub mod sampler;
pub mod service_manager;
pub mod signal;
pub mod snapshot;
pub mod sockets;
pub mod start;
pub mod watch;
pub mod web;
pub mod yaml;
