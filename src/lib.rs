//! Clawgress: an egress gateway for AI agents. One policy says who may talk to what; it is enforced in the kernel's
//! packet filter and in DNS, on a router outside the hosts on which the agents run.
//!
//! # The tour
//!
//! The code stands in three rings. Imports go inwards only, and `tests/conventions.rs` reads the sources to hold that.
//!
//! ```text
//! faces     main → cli    api    daemon                who is asked, and what runs when
//! drivers   nft       dns       store       decisions  the kernel, the wire, the disk; they do not know each other
//! pure      core          settings                     state and its transitions
//!           plan                                       what the kernel and the DNS server shall hold
//!           policy                                     what people write, and what it means
//! ```
//!
//! The pure ring has no files, no sockets, no clock and no `unsafe`. Time is an argument, effects are values. So nearly
//! every promise can be tested without root rights, and the same input gives the same output to the octet.
//!
//! # Where to begin
//!
//! Read [`policy::reference`] first. It is the specification as a program: what the policy means for one query or one
//! flow, by the shortest code that says it. Everything else is that, made fast.
//!
//! Then follow one policy on its way:
//!
//! 1. [`policy::parse()`] turns a document into a [`policy::Policy`], or into every mistake in it at once. A `Policy` is
//!    valid by its type, and each entry knows the line it was written at.
//! 2. [`plan::table`] builds the packet filter's table, in the language of [`plan::ir`]. [`plan::snapshot`] compiles the
//!    names for the DNS server.
//! 3. [`core::state`] holds what the kernel holds. It turns a new policy into transactions.
//! 4. The kernel driver sends them. The kernel takes all of each or nothing, and with the first the policy is in force.
//!
//! And one query on its way: the DNS driver asks the snapshot who asks and whether the name is allowed, looks it up,
//! takes out of the answer what may not be told, and asks for a lease ([`core::lease`]). Only with the proof that the
//! kernel holds the addresses does the answer go. What is asked for again takes a short cut through the same stations,
//! with leases that the daemon's gate has published.
//!
//! # The modules
//!
//! [`policy`]: the document, its validation and its normal form ([`policy::model`], [`policy::diagnostic`]), the
//! decision with its reason ([`policy::decision`]), the reference evaluator, the JSON schema.
//!
//! [`plan`]: the table's language ([`plan::ir`]) has several readers: text for people, the netlink encoder, and
//! [`plan::simulate`], which runs packets through a table in memory. [`plan::ops`] finds the difference of two tables
//! as operations; [`plan::apply`] does to a table in memory what the kernel does with them. [`plan::rpz`] exports the
//! names as response-policy zones, and [`dns::transfer`] serves them to other name servers; the daemon's `zones` gives them
//! their serials.
//!
//! [`core`]: classes, the numbers that live flows carry ([`core::classes`]); leases; the three transitions of the state:
//! a revision (and `core::ahead`, what is done before one that concerns many flows), a lease, a repair. [`core::caps`] counts and grants what exfil caps allow, `core::metering` says which
//! flows are charged, [`core::recharge`] which open ones come to be. [`core::explain`] answers "why?". A plan is made of [`core::compare`] (what
//! differs between two policies), [`core::forecast`] (what a revision does to live flows) and [`core::replay`] (what was
//! decided, decided again).
//!
//! [`decisions`]: the log of what was refused and why. DNS tells of queries ([`core::observe`]), the kernel driver of
//! packets ([`nft::nflog`]); the daemon puts both into the words of the policy.
//!
//! [`core::telemetry`]: who used how much, from the counters of the classes; the daemon's `telemetry` reads them, and
//! [`store::telemetry`] keeps them for a day.
//!
//! `docs/architecture.md` draws the way of a packet and of a query, and says what happens when something dies.
//! `docs/decisions` tells why things are as they are.

pub mod api;
pub mod cli;
pub mod core;
pub mod daemon;
pub mod decisions;
pub mod dns;
pub mod nft;
pub mod plan;
pub mod policy;
pub mod settings;
pub mod store;
