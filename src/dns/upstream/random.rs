//! What nobody can guess, in small portions.

use rustls::crypto::ring;

use super::Failure;

/// Octets that are asked of the system at once: one call for some twenty questions.
const STORE: usize = 1024;

/// A store of random octets; each is given out once.
pub(in crate::dns) struct Randomness {
    store: [u8; STORE],
    used: usize,
}

impl Default for Randomness {
    fn default() -> Self {
        Self { store: [0; STORE], used: STORE }
    }
}

impl Randomness {
    /// So many octets.
    ///
    /// # Errors
    /// The system gives none.
    pub fn octets<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        const { assert!(N <= STORE) };
        if self.used + N > STORE {
            fill(&mut self.store)?;
            self.used = 0;
        }
        let mut octets = [0; N];
        let given = &mut self.store[self.used..][..N];
        octets.copy_from_slice(given);
        // Nobody finds later in memory what was sent.
        given.fill(0);
        self.used += N;
        Ok(octets)
    }

    /// A number of 16 bits.
    ///
    /// # Errors
    /// As [`Randomness::octets`].
    pub fn number(&mut self) -> Result<u16, Failure> {
        self.octets().map(u16::from_ne_bytes)
    }
}

/// Fills `bytes` with what nobody can guess.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    let source = ring::default_provider().secure_random;
    source.fill(bytes).map_err(|_| Failure::Network("the system gives no random numbers".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_out_twice() {
        let mut random = Randomness::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 * STORE / 16 {
            assert!(seen.insert(random.octets::<16>().unwrap()));
        }
        assert!(random.store[..random.used].iter().all(|octet| *octet == 0));
    }
}
