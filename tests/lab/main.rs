//! The lab: what the gateway promises, shown with packets.
//!
//! Each file is one chapter of the promises, each test one promise; the world they act in is in [`world`].
//! Root rights are needed. `cargo test --test lab world_` tests the lab itself, without the daemon.

#[allow(dead_code, unused_imports, reason = "the demo uses the same world; neither uses all of it")]
mod world;

/// A new world, or the end of the test where there are no root rights.
macro_rules! world {
    () => {
        match crate::world::World::build() {
            Some(world) => world,
            None => return,
        }
    };
}

mod world_smoke;
