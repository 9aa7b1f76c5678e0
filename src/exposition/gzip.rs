//! One gzip member out of pieces that were compressed before.
//!
//! Members in a row would be simpler, but curl stops after the first. So each piece is raw deflate that
//! ends on a byte (a sync flush) and refers to nothing before it; a body is the header, the pieces, and
//! the CRC-32 combined from theirs.

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

/// No name, no time, unknown system (RFC 1952).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The scrape's labels repeat so much that higher levels cost far more than they save.
const LEVEL: u32 = 1;

/// A part of a body, plain and compressed.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) plain: Bytes,
    deflated: Bytes,
    crc: Hasher,
}

impl Piece {
    pub(super) fn new(plain: String) -> Self {
        let deflated = deflate(plain.as_bytes(), FlushCompress::Sync).into();
        let mut crc = Hasher::new();
        crc.update(plain.as_bytes());
        Self {
            plain: plain.into(),
            deflated,
            crc,
        }
    }
}

/// The slices of one gzip member that holds `pieces` and then `last`.
pub(super) fn joined<'p>(pieces: impl Iterator<Item = &'p Piece>, last: &[u8]) -> Vec<Bytes> {
    let mut slices = vec![Bytes::from_static(&HEADER)];
    let mut crc = Hasher::new();
    let mut length = last.len();
    for piece in pieces {
        slices.push(piece.deflated.clone());
        crc.combine(&piece.crc);
        length += piece.plain.len();
    }
    let mut own = Hasher::new();
    own.update(last);
    crc.combine(&own);
    let mut end = deflate(last, FlushCompress::Finish);
    end.extend(crc.finalize().to_le_bytes());
    // The length is told modulo 2^32 (RFC 1952).
    end.extend(length.to_le_bytes().into_iter().chain([0; 4]).take(4));
    slices.push(end.into());
    slices
}

fn deflate(plain: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    let mut out = Vec::with_capacity(plain.len() / 8 + 256);
    loop {
        let read = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let rest = plain.get(read..).unwrap_or_default();
        deflate
            .compress_vec(rest, &mut out, flush)
            .expect("deflate in memory fails only on misuse");
        if out.len() < out.capacity() {
            return out;
        }
        out.reserve(out.capacity());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A decoder of one member reads all of it, and checks CRC and length on the way.
        #[test]
        fn joined_pieces_are_one_member(pieces in prop::collection::vec(".{0,400}", 0..6), last in ".{0,400}", times in 0_usize..40) {
            let plain: Vec<String> = pieces.iter().map(|piece| piece.repeat(times)).collect();
            let pieces: Vec<Piece> = plain.iter().cloned().map(Piece::new).collect();
            let body = joined(pieces.iter(), last.as_bytes()).concat();
            let mut decoder = GzDecoder::new(body.as_slice());
            let mut text = String::new();
            decoder.read_to_string(&mut text).unwrap();
            prop_assert_eq!(text, plain.concat() + &last);
            prop_assert!(decoder.into_inner().is_empty());
        }
    }
}
