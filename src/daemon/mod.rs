//! The daemon: everything put together and kept running.
//!
//! [`run`] starts in this order, and stops at the first thing that is missing: the DNS sockets, the kernel's table (an
//! earlier run's is taken over, with its live flows), the policy, and only then readiness. Nothing here opens the gateway:
//! when the daemon ends, however it ends, the kernel goes on enforcing.

mod alive;
pub mod answer;
mod blame;
mod caps;
mod control;
mod decided;
pub mod early;
mod explain;
mod gate;
mod handle;
mod held;
mod lists;
mod logged;
mod mending;
mod packets;
pub mod planned;
mod printed;
pub mod protocol;
mod recorder;
pub mod replayed;
mod revisions;
mod start;
mod status;
pub mod teardown;
mod telemetry;
mod timeline;
mod told;
mod watch;
mod world;
mod zones;

pub use start::run;
