//! gzip streams: written at the speed of a copy, read whoever wrote them.
//!
//! To compress takes several times as long as to copy, and the processes of a container stand still meanwhile; CRIU
//! does not compress their memory either. So bytes are stored as they are, except where zeros prevail: the headers and
//! the padding of an archive, and pages that were touched and never filled, which cost next to nothing to compress.

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, Compression, Crc, FlushCompress};
use std::io::{self, BufReader, ErrorKind, Read, Write};

/// The unit in which it is decided what is stored and what is compressed: a page.
const CHUNK: usize = 4 << 10;

/// How many bytes a stored block holds: as many chunks as fit into 16 bits.
const BLOCK: usize = 15 * CHUNK;

/// How much is read and written at once.
const BUFFER: usize = 4 * BLOCK;

/// Of how many bytes one is looked at to see whether zeros prevail; odd, since records in memory have even sizes.
const SAMPLED: usize = 17;

/// RFC 1952: deflate, without name and time, by the fastest algorithm, on Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];

/// RFC 1951: the last block, stored and empty.
const LAST: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Reads to the end and writes a gzip stream of it.
pub fn compress(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut input = vec![0; BUFFER];
    let mut output = Vec::with_capacity(BUFFER + BUFFER / 8);
    let mut deflate = Compress::new(Compression::fast(), false);
    let mut crc = Crc::new();
    output.extend(HEADER);
    loop {
        let length = fill(&mut from, &mut input)?;
        crc.update(&input[..length]);
        let mut rest = &input[..length];
        while !rest.is_empty() {
            let sparse = zeros_prevail(&rest[..CHUNK.min(rest.len())]);
            let alike = rest.chunks(CHUNK).take_while(|chunk| zeros_prevail(chunk) == sparse).count();
            let run;
            (run, rest) = rest.split_at(rest.len().min(alike * CHUNK));
            match sparse {
                true => compressed(run, &mut deflate, &mut output)?,
                false => run.chunks(BLOCK).for_each(|block| stored(block, &mut output)),
            }
        }
        if length < BUFFER {
            break;
        }
        to.write_all(&output)?;
        output.clear();
    }
    output.extend(LAST);
    output.extend(crc.sum().to_le_bytes());
    output.extend(crc.amount().to_le_bytes());
    to.write_all(&output)
}

/// Reads a gzip stream and writes what it holds.
pub fn decompress(from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut from = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, from));
    let mut buffer = vec![0; BUFFER];
    loop {
        match fill(&mut from, &mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length])?,
        }
    }
}

/// Reads until the buffer is full or nothing is left; returns how much it was.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(length)
}

fn zeros_prevail(chunk: &[u8]) -> bool {
    let zeros = chunk.iter().step_by(SAMPLED).filter(|byte| **byte == 0).count();
    2 * zeros > chunk.len().div_ceil(SAMPLED)
}

/// Appends a stored block, which is not the last: RFC 1951, 3.2.4.
fn stored(block: &[u8], output: &mut Vec<u8>) {
    // No block is longer than BLOCK.
    let length = block.len() as u16;
    output.push(0);
    output.extend(length.to_le_bytes());
    output.extend((!length).to_le_bytes());
    output.extend(block);
}

/// Appends compressed blocks that end on a byte and refer to nothing before them: the compressor has not seen what was
/// stored.
fn compressed(run: &[u8], deflate: &mut Compress, output: &mut Vec<u8>) -> io::Result<()> {
    deflate.reset();
    // It writes into what is reserved; zeros shrink, so there is always room for all.
    output.reserve(run.len() + CHUNK);
    deflate.compress_vec(run, output, FlushCompress::Sync).map_err(io::Error::other)?;
    match deflate.total_in() == run.len() as u64 {
        true => Ok(()),
        false => Err(io::Error::other("the compressor did not take all of its input")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(bytes: &[u8]) -> usize {
        let (mut stream, mut back) = (Vec::new(), Vec::new());
        compress(bytes, &mut stream).unwrap();
        decompress(&stream[..], &mut back).unwrap();
        assert!(bytes == back, "{} bytes became {}", bytes.len(), back.len());
        stream.len()
    }

    /// Bytes that nothing can compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        for length in [0, 1, 17, CHUNK - 1, CHUNK, CHUNK + 1, BLOCK, BLOCK + 1, BUFFER - 1, BUFFER, 3 * BUFFER + 5] {
            round_trip(&noise(length));
            round_trip(&vec![0; length]);
        }
    }

    #[test]
    fn noise_grows_by_less_than_a_thousandth() {
        let length = 1 << 20;
        assert!(round_trip(&noise(length)) < length + length / 1000);
    }

    #[test]
    fn zeros_shrink_to_less_than_a_hundredth() {
        let length = 1 << 20;
        assert!(round_trip(&vec![0; length]) < length / 100);
        // What lies between is stored, and the compressor knows nothing of it.
        let mixed = [noise(CHUNK), vec![0; 3 * CHUNK]].concat().repeat(100);
        assert!(round_trip(&mixed) < 110 * CHUNK);
        // Half of the bytes of every page.
        let half = noise(length).into_iter().enumerate().map(|(at, byte)| if at % 7 < 4 { 0 } else { byte });
        assert!(round_trip(&half.collect::<Vec<_>>()) < length * 3 / 4);
    }

    #[test]
    fn a_reader_may_give_little_at_a_time() {
        struct Drops<'a>(&'a [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(1000);
                self.0.read(&mut buffer[..length])
            }
        }
        let bytes = noise(BUFFER + 7);
        let mut stream = Vec::new();
        compress(Drops(&bytes), &mut stream).unwrap();
        let mut back = Vec::new();
        decompress(Drops(&stream), &mut back).unwrap();
        assert!(bytes == back);
    }

    #[test]
    fn what_others_compress_is_read() {
        let mut others = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
        others.write_all(&b"word ".repeat(10_000)).unwrap();
        let mut back = Vec::new();
        decompress(&others.finish().unwrap()[..], &mut back).unwrap();
        assert!(back == b"word ".repeat(10_000));
    }

    #[test]
    fn damage_is_seen() {
        let mut stream = Vec::new();
        compress(&noise(CHUNK)[..], &mut stream).unwrap();
        let mut changed = stream.clone();
        changed[100] ^= 1;
        let cases = [&stream[..stream.len() - 1], &stream[..CHUNK / 2], &changed[..], &b"no gzip"[..], &[]];
        for damaged in cases {
            assert!(decompress(damaged, io::sink()).is_err());
        }
    }
}
