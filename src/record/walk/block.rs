//! 64 bytes of JSON at a time, as bits: where quotes, backslashes and brackets are.

use wide::u8x16;

const LANES: usize = 16;

/// 64 bytes; bit `n` of each mask is byte `n`.
pub(super) struct Block([u8x16; Self::SIZE / LANES]);

impl Block {
    pub(super) const SIZE: usize = 64;

    /// The block that begins at `at`, filled up with spaces behind the end; `None` at the end.
    pub(super) fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        if let Some(block) = rest.first_chunk::<{ Self::SIZE }>() {
            return Some(Self::new(block));
        }
        let mut filled = [b' '; Self::SIZE];
        filled.get_mut(..rest.len())?.copy_from_slice(rest);
        Some(Self::new(&filled))
    }

    fn new(bytes: &[u8; Self::SIZE]) -> Self {
        let (chunks, _) = bytes.as_chunks::<LANES>();
        let mut lanes = chunks.iter().copied().map(u8x16::new);
        Self(std::array::from_fn(|_| lanes.next().unwrap_or_default()))
    }

    fn mask(&self, of: impl Fn(u8x16) -> u8x16) -> u64 {
        let mut mask = 0;
        for (place, lane) in self.0.iter().enumerate() {
            mask |= u64::from(of(*lane).to_bitmask()) << (place * LANES);
        }
        mask
    }

    fn equal(&self, byte: u8) -> u64 {
        let byte = u8x16::splat(byte);
        self.mask(|lane| lane.simd_eq(byte))
    }

    /// Where `{` or `[` is: they differ in the bit that tells ASCII's cases apart, as `}` and `]` do.
    pub(super) fn open(&self) -> u64 {
        self.either_case(b'{')
    }

    /// Where `}` or `]` is.
    pub(super) fn close(&self) -> u64 {
        self.either_case(b'}')
    }

    fn either_case(&self, lower: u8) -> u64 {
        let (case, byte) = (u8x16::splat(0x20), u8x16::splat(lower));
        self.mask(|lane| (lane | case).simd_eq(byte))
    }
}

/// Follows strings from block to block.
#[derive(Default)]
pub(super) struct Strings {
    /// All bits are set if the last block ended inside a string.
    open: u64,
    /// 1 if the last block ended with a backslash that escapes the next byte.
    escaping: u64,
}

impl Strings {
    /// Which bytes of the next block are inside a string, its opening quote included and its closing one not.
    pub(super) fn inside(&mut self, block: &Block) -> u64 {
        let quotes = block.equal(b'"') & !self.escaped(block.equal(b'\\'));
        let inside = up_to_each(quotes) ^ self.open;
        self.open = 0_u64.wrapping_sub(inside >> 63);
        inside
    }

    /// Which bytes a backslash before them escapes: in a row of backslashes every second one, and
    /// the byte after a row of odd length. A subtraction carries along each row, as in simdjson
    /// (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019).
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
        if backslashes == 0 {
            return std::mem::take(&mut self.escaping);
        }
        let starts = backslashes & !self.escaping;
        let carried = ((starts << 1) | ODD).wrapping_sub(starts) ^ ODD;
        let escaped = carried ^ (backslashes | self.escaping);
        self.escaping = (carried & backslashes) >> 63;
        escaped
    }
}

/// Sets each bit that has an odd number of set bits at and below it: from each opening quote up to the
/// closing one.
fn up_to_each(mut bits: u64) -> u64 {
    for distance in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << distance;
    }
    bits
}

/// Where the next `"` or `\` is, from `at` on.
pub(super) fn quote_or_backslash(bytes: &[u8], mut at: usize) -> Option<usize> {
    let (quote, backslash) = (u8x16::splat(b'"'), u8x16::splat(b'\\'));
    loop {
        let rest = bytes.get(at..)?;
        let Some(chunk) = rest.first_chunk::<LANES>() else {
            let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            return Some(at + found);
        };
        let lane = u8x16::new(*chunk);
        let found = (lane.simd_eq(quote) | lane.simd_eq(backslash)).to_bitmask();
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize);
        }
        at += LANES;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The reference goes byte by byte.
        #[test]
        fn bits_tell_what_a_byte_by_byte_walk_tells(text in r#"["\\a{\[\]} ]{0,300}"#) {
            let (mut inside, mut escaping) = (false, false);
            let mut expected = Vec::new();
            for byte in text.bytes() {
                let quote = byte == b'"' && !escaping;
                inside ^= quote;
                escaping = byte == b'\\' && !escaping;
                expected.push((inside, matches!(byte, b'{' | b'['), matches!(byte, b'}' | b']')));
            }
            let mut strings = Strings::default();
            let mut told = Vec::new();
            let mut at = 0;
            while let Some(block) = Block::at(text.as_bytes(), at) {
                let masks = (strings.inside(&block), block.open(), block.close());
                let bit = |mask: u64, bit: usize| mask >> bit & 1 == 1;
                told.extend((0..Block::SIZE).map(|n| (bit(masks.0, n), bit(masks.1, n), bit(masks.2, n))));
                at += Block::SIZE;
            }
            told.truncate(text.len());
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn the_next_quote_or_backslash_is_found(text in r#"[a"\\é]{0,80}"#, at in 0_usize..90) {
            let expected = (at..text.len()).find(|place| matches!(text.as_bytes()[*place], b'"' | b'\\'));
            prop_assert_eq!(quote_or_backslash(text.as_bytes(), at), expected);
        }
    }
}
