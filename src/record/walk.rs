//! A walk over JSON text that reads the members it is asked for and passes over all others.
//!
//! Nine tenths of a log file are members that nobody counts by. Passing over them took serde_json more
//! than all the rest of counting (`benches/count.rs`), so the walk only finds where they end: strings
//! end at their quote, objects and lists where as many brackets have closed as opened. What it reads,
//! and what wraps it, is checked; what it passes over may be wrong inside, but not cut off.

mod block;

use std::borrow::Cow;

use self::block::{Block, Strings, quote_or_backslash};

/// Where the text stops being the JSON that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at}")]
pub struct Unexpected {
    /// The place in the text, in bytes.
    pub at: usize,
    /// What would have been right there.
    pub expected: &'static str,
}

/// A place in a JSON text.
pub(super) struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is no white space; `None` at the end.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// The place, for [`Walk::back_to`].
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// Goes back to a place where the walk was before.
    pub(super) fn back_to(&mut self, place: usize) {
        self.at = place;
    }

    /// Walks through an object: `each` is called with the name of every member and must read its value
    /// or pass over it.
    pub(super) fn members<E: From<Unexpected>>(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'{', "an object")?;
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            let name = self.text()?;
            self.take(b':', "`:`")?;
            each(self, &name)?;
            if self.takes(b'}') {
                return Ok(());
            }
            self.take(b',', "`,` or `}`")?;
        }
    }

    /// Walks through a list: `each` must read every element or pass over it.
    pub(super) fn elements<E: From<Unexpected>>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'[', "a list")?;
        if self.takes(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            if self.takes(b']') {
                return Ok(());
            }
            self.take(b',', "`,` or `]`")?;
        }
    }

    /// Reads a text or null, which is `None`.
    pub(super) fn text_or_null(&mut self) -> Result<Option<Cow<'a, str>>, Unexpected> {
        match self.peek() {
            Some(b'"') => self.text().map(Some),
            _ if self.null() => Ok(None),
            _ => Err(self.unexpected("a text or null")),
        }
    }

    /// Passes over `null` if it stands here.
    pub(super) fn null(&mut self) -> bool {
        let null = self.peek() == Some(b'n') && self.rest().starts_with(b"null");
        if null {
            self.at += 4;
        }
        null
    }

    /// Passes over any value.
    pub(super) fn skip(&mut self) -> Result<(), Unexpected> {
        match self.peek() {
            Some(b'"') => {
                (self.at, _) = self.string_end(self.at + 1)?;
                self.at += 1;
                Ok(())
            }
            Some(b'{' | b'[') => self.skip_brackets(),
            _ => self.skip_word(),
        }
    }

    /// Passes over any value and tells its text.
    pub(super) fn raw(&mut self) -> Result<&'a str, Unexpected> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn unexpected(&self, expected: &'static str) -> Unexpected {
        Unexpected {
            at: self.at,
            expected,
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Unexpected> {
        if self.takes(byte) {
            Ok(())
        } else {
            Err(self.unexpected(expected))
        }
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Unexpected> {
        self.take(b'"', "a text")?;
        let start = self.at;
        let (end, escapes) = self.string_end(start)?;
        self.at = end + 1;
        if escapes {
            let quoted = self.text.get(start - 1..=end).unwrap_or_default();
            return serde_json::from_str(quoted)
                .map(Cow::Owned)
                .map_err(|_| Unexpected {
                    at: start,
                    expected: "a text with JSON's escapes",
                });
        }
        Ok(Cow::Borrowed(self.text.get(start..end).unwrap_or_default()))
    }

    /// Where the closing quote of the string is that begins at `at`, and whether it has escapes.
    fn string_end(&self, mut at: usize) -> Result<(usize, bool), Unexpected> {
        let bytes = self.text.as_bytes();
        let mut escapes = false;
        while let Some(found) = quote_or_backslash(bytes, at) {
            if bytes.get(found) == Some(&b'"') {
                return Ok((found, escapes));
            }
            escapes = true;
            at = found + 2;
        }
        Err(Unexpected {
            at: bytes.len(),
            expected: "`\"`",
        })
    }

    /// Passes over an object or a list, 64 bytes at a time.
    fn skip_brackets(&mut self) -> Result<(), Unexpected> {
        let mut depth = 0;
        let mut strings = Strings::default();
        while let Some(block) = Block::at(self.text.as_bytes(), self.at) {
            let outside = !strings.inside(&block);
            let (open, close) = (block.open() & outside, block.close() & outside);
            let mut closed = 0;
            let mut left = close;
            while left != 0 {
                let bit = left.trailing_zeros();
                closed += 1;
                if depth + (open & ((1 << bit) - 1)).count_ones() == closed {
                    self.at += bit as usize + 1;
                    return Ok(());
                }
                left &= left - 1;
            }
            depth = depth + open.count_ones() - closed;
            self.at += Block::SIZE;
        }
        self.at = self.text.len();
        Err(self.unexpected("`}` or `]`"))
    }

    /// Passes over a number, `true`, `false` or `null`.
    fn skip_word(&mut self) -> Result<(), Unexpected> {
        let ends = |byte: &u8| {
            matches!(byte, b',' | b'}' | b']' | b':' | b'"') || byte.is_ascii_whitespace()
        };
        let rest = self.rest();
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        let number = |word: &[u8]| {
            matches!(word.first(), Some(b'-' | b'0'..=b'9'))
                && word
                    .iter()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        };
        if !matches!(word, b"true" | b"false" | b"null") && !number(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes over the first value of `text` and tells what is left.
    fn skipped(text: &str) -> Result<&str, String> {
        let mut walk = Walk::new(text);
        walk.skip().map_err(|error| error.to_string())?;
        Ok(text.get(walk.place()..).unwrap())
    }

    #[test]
    fn values_are_passed_over_to_their_end_and_no_further() {
        let long = "x".repeat(200);
        for value in [
            "null",
            "-1.5e+3",
            "true",
            r#""""#,
            r#""a\"b\\""#,
            "{}",
            "[]",
            r#"{"a":"}","b":["]",{"c":"\\\"}"}]}"#,
            &format!(r#"{{"{long}\\":"{long}\"{long}"}}"#),
            &format!("{}{}", "[".repeat(500), "]".repeat(500)),
        ] {
            for before in 0..70 {
                let spaces = " ".repeat(before);
                let text = format!("{spaces}{value},\"]}}\"");
                assert_eq!(skipped(&text), Ok(r#","]}""#), "{text}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_no_value_is_an_error_with_its_place() {
        for (text, expected) in [
            ("", "expected a value at byte 0"),
            ("  nul ", "expected a value at byte 2"),
            ("+1", "expected a value at byte 0"),
            (r#""abc"#, "expected `\"` at byte 4"),
            (r#""abc\"#, "expected `\"` at byte 5"),
            (r#"{"a":[1,"]"}"#, "expected `}` or `]` at byte 12"),
        ] {
            assert_eq!(skipped(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn texts_are_borrowed_unless_they_have_escapes() {
        let read = |text| Walk::new(text).text_or_null();
        assert!(matches!(
            read(r#""plain é""#),
            Ok(Some(Cow::Borrowed("plain é")))
        ));
        assert!(matches!(read(r#" "a\u00e9\"" "#), Ok(Some(Cow::Owned(text))) if text == "aé\""));
        assert_eq!(read("null"), Ok(None));
        assert!(read(r#""\x""#).is_err());
        assert!(read("7").is_err());
    }
}
