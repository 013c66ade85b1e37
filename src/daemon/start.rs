//! Start and end of the daemon.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use arc_swap::ArcSwapOption;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, Semaphore, watch as channel};
use tracing::{error, info, warn};

use super::answer::{Caller, Office, answer};
use super::decided::Decided;
use super::gate::{Gate, recharge};
use super::protocol::{Refusal, Response};
use super::recorder::Recorder;
use super::revisions::{Author, Last, Revisions, describe, keep_promises};
use super::status::is_stored;
use super::telemetry::Telemetry;
use super::{alive, caps, control, held, lists, timeline, watch, world, zones};
use crate::nft::{Kernel, KernelError, Options, Removals};
use crate::plan::situation::Reports;
use crate::plan::snapshot::Snapshot;
use crate::policy::Policy;
use crate::settings::{OutOfScope, Settings};
use crate::store::{self, Origin, Store};
use crate::{api, dns, nft};

/// Threads for DNS and control; the gate and the watch have their own.
const WORKERS: usize = 2;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What is missing to start, in words; nothing was changed then.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    nft::set_up_allocator();
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let result = runtime.block_on(serve(settings));
    // Look-ups that still wait for an upstream are not waited for.
    runtime.shutdown_background();
    result
}

/// To stderr, which the journal takes; `RUST_LOG` overrides.
fn log() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,hickory_server=warn,hickory_proto=warn,hickory_net=warn,h2=warn"));
    let terminal = std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .try_init();
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    for sentence in &settings.not_yet {
        warn!("{sentence}");
    }
    // Before anything else: a signal that comes while we start must not end us.
    let signals = Signals::take()?;
    // First what tells that another daemon runs: its port and its table would be misleading reasons.
    let store = Store::open(&settings.policy, &settings.state_dir)?;
    let socket = control::listen(&settings.runtime_dir)?;
    let runtime_dir = settings.runtime_dir.clone();
    let result = work(settings, store, socket, signals).await;
    control::remove(&runtime_dir);
    result
}

async fn work(settings: Settings, store: Store, socket: UnixListener, signals: Signals) -> anyhow::Result<()> {
    let counters = Arc::new(dns::Counters::default());
    let bound = dns::bind(&dns_settings(&settings)?, Arc::clone(&counters))?;
    let listen = bound.addresses();
    let (zones_bound, outlet) = zones::open(&settings)?.unzip();
    let recorder = Recorder::start(&settings)?;
    let (last, damage) = Last::of(&store);
    let policy = last.as_ref().and_then(Last::policy);
    let (mut gate, owned) = open_gate(&settings, policy, &listen, recorder.reports)?;
    // Before the first change, so that what it ends is counted.
    let removals = removals(&mut gate, owned).context("cannot listen to what ends in the packet filter")?;
    let judge = gate.judge();
    let (changed, changed_too, may_have_caps) = (gate.changed(), gate.changed(), gate.changed());
    let due = gate.recharge_due();
    let (handle, thread) = gate.spawn().context("cannot start the gate's thread")?;
    let telemetry = Telemetry::start(&settings.state_dir, removals)?;
    let notes = Arc::clone(&telemetry.notes);
    let decided = Decided::new(Arc::clone(&judge), handle.clone(), recorder.sender.clone(), notes);
    let bound = bound.observed_by(Arc::new(decided.clone()));
    let log = Arc::clone(&recorder.log);
    let recorder = recorder.listen(decided).context("cannot start the thread that listens to refused packets")?;

    let mut revisions = Revisions::new(store, settings.policy.clone(), handle.clone());
    if let Err(why) = revisions.boot(last, damage).await {
        // What an earlier run left in the kernel stays in force; without it there is nothing to protect yet.
        revisions.trouble.push(why);
    }
    // Until it was taken over a moment ago, anybody could change the earlier run's table.
    match handle.run(Gate::reshape).await? {
        Ok(true) => warn!("the table of the earlier run was not as it should be; it was restored"),
        Ok(false) => {}
        Err(error) => {
            revisions.trouble.push(format!("the table of the earlier run is not as it should be: {error}"));
        }
    }
    report(&revisions);

    let (stop, stopped) = channel::channel(false);
    let office = Arc::new(Office {
        gate: handle.clone(),
        revisions: Mutex::new(revisions),
        counters,
        listen: listen.clone(),
        owned,
        api: Arc::default(),
        outlet: outlet.clone(),
        api_settings: channel::Sender::new(settings.api.clone()),
        settings: settings.clone(),
        log,
        telemetry,
        followers: Arc::new(Semaphore::new(control::FOLLOWERS)),
        planning: Mutex::default(),
        stopped: stopped.clone(),
    });
    let zones_settings = settings.clone();
    let mut tasks = vec![
        tokio::spawn(rest(Arc::clone(&office), wait(stopped.clone()))),
        tokio::spawn(bound.serve(judge, Arc::new(handle.clone()), wait(stopped.clone()))),
        tokio::spawn(control::serve(socket, Arc::clone(&office), wait(stopped.clone()))),
        tokio::spawn(watch::world(handle.clone(), listen, settings, wait(stopped.clone()))),
        tokio::spawn(keep_promises(Arc::clone(&office), wait(stopped.clone()))),
        tokio::spawn(lists::follow(Arc::clone(&office), wait(stopped.clone()))),
        tokio::spawn(timeline::keep(handle.clone(), changed, wait(stopped.clone()))),
        tokio::spawn(recharge::follow(handle.clone(), due, wait(stopped.clone()))),
        tokio::spawn(alive::tell(handle.clone(), wait(stopped.clone()))),
    ];
    if let (Some(bound), Some(outlet)) = (zones_bound, outlet) {
        tasks.push(tokio::spawn(bound.serve(wait(stopped.clone()))));
        tasks.push(tokio::spawn(zones::keep(outlet, handle.clone(), changed_too, zones_settings, wait(stopped))));
    }
    if !owned {
        watch::table(handle.clone());
    }
    caps::listen(handle.clone(), may_have_caps);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!("ready");
    until_told(&office, signals).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = stop.send(true);
    for task in tasks {
        let _ = task.await;
    }
    // The gate is asked for names to the end.
    let last = Arc::clone(&office);
    let _ = tokio::task::spawn_blocking(move || {
        recorder.stop();
        last.telemetry.stop();
    })
    .await;
    handle.stop();
    let _ = thread.join();
    info!("stopped; the kernel goes on enforcing (clawgress teardown opens the gateway)");
    Ok(())
}

/// The REST API.
async fn rest(office: Arc<Office>, stopped: impl Future<Output = ()>) {
    let settings = office.api_settings.subscribe();
    let state = Arc::clone(&office.api);
    let ask: api::Ask = Arc::new(move |request, key| {
        let office = Arc::clone(&office);
        // A task of its own: a client that goes away must not end a change half-way.
        let work = tokio::spawn(async move { answer(request, &Caller::Key(key), &office).await });
        Box::pin(async move {
            work.await
                .unwrap_or_else(|_| Response::failed("a fault in clawgress, please report it; its log tells more"))
        })
    });
    api::serve(settings, ask, state, stopped).await;
}

async fn wait(mut stopped: channel::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn dns_settings(settings: &Settings) -> anyhow::Result<dns::Settings> {
    let upstreams = settings
        .dns
        .upstreams
        .iter()
        .flatten()
        .map(|text| text.parse().map_err(|error: dns::UpstreamError| anyhow::anyhow!("dns.upstreams: {error}")));
    Ok(dns::Settings {
        listen: settings.dns.listen.clone(),
        upstreams: upstreams.collect::<anyhow::Result<_>>()?,
        out_of_scope: match settings.dns.out_of_scope {
            OutOfScope::Refuse => dns::OutOfScope::Refuse,
            OutOfScope::Forward => dns::OutOfScope::Forward,
        },
        queries_per_second: settings.dns.queries_per_second,
        receivers: settings.dns.receivers.unwrap_or_else(dns::Settings::usual_receivers),
    })
}

/// The gate over the kernel's table, and whether the table is locked against others. `last`: the policy that the earlier
/// run enforced, if it can be told.
fn open_gate(
    settings: &Settings,
    last: Option<&Policy>,
    listen: &[SocketAddr],
    reports: Reports,
) -> anyhow::Result<(Gate, bool)> {
    let wanted = settings.kernel.lock_table;
    let mut kernel = Kernel::open(Options { own_table: wanted, ..Options::default() })?;
    let held = kernel.read()?;
    if let Some(held) = &held
        && !held::is_ours(held)
    {
        bail!(held::NOT_OURS);
    }
    // A table that was made without a lock cannot be locked afterwards without a gap.
    let owned = wanted && kernel.features().owner && held.as_ref().is_none_or(|held| held.owned);
    if !owned {
        if wanted {
            info!("the table cannot be locked against other programs here; it is watched and repaired instead");
        }
        kernel = Kernel::open(Options { own_table: false, ..Options::default() })?;
    }
    let world = world::look(&mut kernel, listen, settings.dns.redirect, reports, last);
    let judge = Arc::new(ArcSwapOption::<Snapshot>::empty());
    let gate = Gate::open(kernel, world, last, judge, &settings.state_dir)?;
    Ok((gate, owned))
}

/// What ends elements that count: only ourselves, where nobody else may change the table. Listening to everybody has a
/// price: a message from the kernel for each element that comes or goes.
fn removals(gate: &mut Gate, owned: bool) -> Result<Removals, KernelError> {
    if !owned {
        return Removals::of_anybody();
    }
    let (removals, teller) = Removals::of_writer()?;
    gate.kernel().tell(teller)?;
    Ok(removals)
}

fn report(revisions: &Revisions) {
    match &revisions.current {
        Some(current) => info!(
            "revision {} is in force ({} of it {}, sha256 {})",
            current.meta.revision,
            current.meta.origin,
            current.meta.applied_at.format("%Y-%m-%d %H:%M:%S UTC"),
            current.meta.sha256.get(..12).unwrap_or_default()
        ),
        None if revisions.trouble.is_empty() => {
            warn!(
                "unconfigured: no policy was ever stored, so nothing is enforced; import one: clawgress import --policy FILE"
            );
        }
        None => error!("no policy could be put in force; import one: clawgress import --policy FILE"),
    }
    for trouble in &revisions.trouble {
        error!("{trouble}");
    }
}

/// The signals that mean something to the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Returns at SIGTERM or SIGINT; SIGHUP reads settings and policy again.
async fn until_told(office: &Arc<Office>, mut signals: Signals) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => reload(office).await,
        }
    }
}

async fn reload(office: &Arc<Office>) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
    match store::load_settings(office.settings.source.named()) {
        Ok(fresh) => {
            if (Settings { api: office.settings.api.clone(), ..fresh.clone() }) != office.settings {
                warn!(
                    "the settings file changed; besides [api] its settings take effect when the daemon is started again"
                );
            }
            // Also if they are the same: the files that they name may be new.
            office.api_settings.send_replace(fresh.api);
        }
        Err(error) => error!("settings not read again, the old ones stay: {error}"),
    }
    let mut revisions = office.revisions.lock().await;
    match revisions.waits() {
        Some(sentence) => warn!("the stored policy is not read again while one is on trial: {sentence}"),
        None => reload_policy(&mut revisions).await,
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

async fn reload_policy(revisions: &mut Revisions) {
    match revisions.apply(None, &Author::from(Origin::Cli), None).await {
        Ok(accepted) => {
            info!("read again: revision {} is in force", accepted.revision.unwrap_or_default());
            for sentence in &accepted.trouble {
                warn!("{sentence}");
            }
        }
        Err(rejected) => {
            // What is in force is the stored policy: only its files can be no good, and the watch over them sees it when they
            // are again.
            let files = rejected.refusal == Refusal::Invalid && is_stored(revisions);
            let what = if files {
                "the files of the policy in force are not taken up"
            } else {
                "the stored policy is not enforced"
            };
            error!("{what}: {}", rejected.message);
            for mistake in &rejected.errors {
                error!("{mistake}");
            }
            let told = vec![format!("{what}: {}", describe(&rejected))];
            if files { revisions.lists_trouble = told } else { revisions.trouble = told }
        }
    }
}
