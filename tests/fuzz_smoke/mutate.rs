//! Small damage to known inputs, the same for the same seed.

/// Octets at the edges of what fields hold.
const EDGES: [u8; 8] = [0, 1, 0x3f, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
/// Pieces of policies; in other inputs they are as good as any octets.
const WORDS: [&str; 16] = [
    "\"deny\":",
    "\"*.a.example\"",
    "\"ips\":[\"0.0.0.0/0\"]",
    "\"::/0\"",
    "[]",
    "{}",
    "null",
    "1e99",
    "-0",
    "\\ud800",
    "\\u0000",
    "\u{df}",
    "[[[[",
    "\"mode\":\"monitor\"",
    "\"ports\":[0]",
    "\"xn--\"",
];

/// xorshift64* over a list of inputs.
pub struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, corpus }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap_or(0) % bound.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(64) + 1)
    }

    /// One of the inputs with one to eight changes.
    pub fn next(&mut self, longest: usize) -> Vec<u8> {
        let index = self.below(self.corpus.len());
        let mut octets = self.corpus[index].clone();
        for _ in 0..1 + self.below(8) {
            self.change(&mut octets);
        }
        octets.truncate(longest);
        octets
    }

    fn change(&mut self, octets: &mut Vec<u8>) {
        let place = self.below(octets.len());
        match self.below(8) {
            0 if !octets.is_empty() => octets[place] ^= 1 << self.below(8),
            1 if !octets.is_empty() => octets[place] = EDGES[self.below(EDGES.len())],
            2 if !octets.is_empty() => octets[place] = u8::try_from(self.below(256)).unwrap_or(0),
            3 => drop(octets.drain(self.range(octets.len()))),
            4 => {
                let piece = octets[self.range(octets.len())].to_vec();
                self.insert(octets, &piece);
            }
            5 => {
                let other = self.below(self.corpus.len());
                let range = self.range(self.corpus[other].len());
                let piece = self.corpus[other][range].to_vec();
                self.insert(octets, &piece);
            }
            6 => self.insert_word(octets),
            _ => octets.truncate(place.max(1)),
        }
    }

    fn insert(&mut self, octets: &mut Vec<u8>, piece: &[u8]) {
        let at = self.below(octets.len() + 1);
        octets.splice(at..at, piece.iter().copied());
    }

    fn insert_word(&mut self, octets: &mut Vec<u8>) {
        let word = WORDS[self.below(WORDS.len())];
        self.insert(octets, word.as_bytes());
    }
}
