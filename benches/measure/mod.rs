//! What the benchmarks share: rounds, medians, one table each, processors and memory.

pub mod upstream;

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// `BENCH_QUICK=1`: the fewest rounds and smaller sizes where the size is not the point.
pub fn quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some()
}

/// Whether a part of the benchmark was asked for: by its name on the command line (`cargo bench --bench lease -- race`), or
/// with all others by none.
pub fn wanted(part: &str) -> bool {
    let mut parts = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    parts.peek().is_none() || parts.any(|argument| argument == part)
}

/// How many alternating rounds; three are the fewest with a middle one.
pub fn rounds() -> usize {
    if quick() { 3 } else { 9 }
}

/// The middle value (of an even count, the lower one of the two).
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value that `percent` of the values do not exceed.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The median of `ours[i] / theirs[i]`: values of one round stand beside each other in time.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

/// `min..max` with as many decimals as wanted.
pub fn spread(values: &[f64], decimals: usize) -> String {
    let (least, most) = (percentile(values, 0.0), percentile(values, 100.0));
    format!("{least:.decimals$}..{most:.decimals$}")
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Runs `work` and says how long it took, in milliseconds.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, ms(start.elapsed()))
}

/// The order in which a round goes through `count` variants, so that none is always first.
pub fn order(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round) % count)
}

/// Keeps this thread on one processor.
pub fn pin_this_thread(cpu: usize) {
    pin(Pid::from_raw(0), cpu);
}

/// Keeps every thread of a process on one processor.
pub fn pin_process(pid: u32, cpu: usize) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for id in tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()) {
        pin(Pid::from_raw(id), cpu);
    }
}

/// Best effort: on a machine with fewer processors everything shares the one there is.
fn pin(task: Pid, cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = sched_setaffinity(task, &set);
    }
}

/// Lets this thread, and those it starts, run before every ordinary one: other programs' load disturbs less. Best
/// effort.
pub fn first_in_line() {
    schedule(&["--fifo", "--pid", "1", &nix::unistd::gettid().to_string()]);
}

/// [`first_in_line`] for every thread of another process.
pub fn first_in_line_process(pid: u32) {
    schedule(&["--all-tasks", "--fifo", "--pid", "1", &pid.to_string()]);
}

/// Undoes [`first_in_line_process`]: threads of the process take turns again.
pub fn take_turns_process(pid: u32) {
    schedule(&["--all-tasks", "--other", "--pid", "0", &pid.to_string()]);
}

fn schedule(arguments: &[&str]) {
    let mut command = std::process::Command::new("chrt");
    let _ = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Resident memory of a process, now and at its highest, MB (10^6 octets).
pub fn memory(pid: u32) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib: f64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN);
        kib * 1024.0 / 1e6
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Processor's time that a process has had.
pub fn processor_time(pid: u32) -> Duration {
    /// `USER_HZ`, the unit of proc_pid_stat(5).
    const TICKS: u64 = 100;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// A bar from the specification, and whether it was met.
pub fn bar(met: bool, text: &str) -> String {
    format!("{text} {}", if met { "met" } else { "MISSED" })
}

/// Bars of the specification for a million rules: first answer, in force (milliseconds), resident (MB), highest to resident.
pub mod million {
    pub const FIRST: f64 = 1000.0;
    pub const IN_FORCE: f64 = 1000.0;
    pub const RESIDENT: f64 = 100.0;
    pub const PEAK: f64 = 2.2;
}

/// Rows under a title, printed with aligned columns.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self { title: title.to_owned(), rows: vec![columns.iter().map(|&text| text.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// Prints everything.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        println!("\n{}", self.title);
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}
