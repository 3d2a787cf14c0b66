//! `hog MIB` fills memory with what does not compress, makes /ready, and waits: the program of a container that is dumped.

use std::time::Duration;

fn main() {
    let mib: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("usage: hog MIB");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let memory: Vec<u64> = (0..mib << 17).map(|_| next()).collect();
    std::fs::write("/ready", memory.len().to_string()).expect("a writable root");
    loop {
        std::thread::sleep(Duration::from_secs(1));
        std::hint::black_box(&memory);
    }
}
