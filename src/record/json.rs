//! The JSON of log files: the members of a record, and the walk over what wraps records.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::{Reader, Record};

/// The members of a record as they stand in the file. A member of another type than text is an error:
/// the record is not one of CloudTrail's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw<'a> {
    #[serde(default, borrow)]
    pub(super) event_time: Text<'a>,
    #[serde(default, borrow)]
    pub(super) event_source: Text<'a>,
    #[serde(default, borrow)]
    pub(super) event_name: Text<'a>,
    #[serde(default, borrow)]
    pub(super) aws_region: Text<'a>,
    #[serde(default, borrow, rename = "eventID")]
    pub(super) event_id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) recipient_account_id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) event_category: Text<'a>,
    #[serde(default, borrow)]
    pub(super) tls_details: Option<RawTls<'a>>,
}

/// `tlsDetails`; AWS documents that any member may be missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTls<'a> {
    #[serde(default, borrow)]
    pub(super) tls_version: Text<'a>,
    #[serde(default, borrow)]
    pub(super) cipher_suite: Text<'a>,
    #[serde(default, borrow)]
    pub(super) key_exchange: Text<'a>,
}

/// A text or null, borrowed wherever it has no escapes.
#[derive(Default)]
pub(super) struct Text<'a>(pub(super) Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    /// The text, or an empty one.
    pub(super) fn or_empty(self) -> Cow<'a, str> {
        self.0.unwrap_or_default()
    }

    /// Whether this is `value`.
    pub(super) fn is(&self, value: &str) -> bool {
        self.0.as_deref() == Some(value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or null")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text(None))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

/// What a JSON value at the top of a file was.
pub(super) enum Shape {
    /// A list, or an object with `Records`: its records were handed on.
    Records,
    /// An object without `Records`.
    Other,
}

/// One JSON value at the top of the file.
pub(super) struct TopLevel<'r, F>(pub(super) &'r mut Reader<F>);

impl<'de, F: FnMut(Record<'de>)> DeserializeSeed<'de> for TopLevel<'_, F> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Record<'de>)> Visitor<'de> for TopLevel<'_, F> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`Records`, or a record")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Shape, A::Error> {
        List(self.0).visit_seq(list).map(|()| Shape::Records)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::Other;
        while let Some(Text(member)) = members.next_key()? {
            if member.as_deref() == Some("Records") {
                members.next_value_seed(List(self.0))?;
                shape = Shape::Records;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(shape)
    }
}

/// A list of records, each handed on as soon as it is read: a file's records are never all in memory.
struct List<'r, F>(&'r mut Reader<F>);

impl<'de, F: FnMut(Record<'de>)> DeserializeSeed<'de> for List<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Record<'de>)> Visitor<'de> for List<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(raw) = list.next_element::<Raw<'de>>()? {
            if let Err(failure) = self.0.take(raw) {
                self.0.failure = Some(failure);
                return Err(A::Error::custom("a record cannot be counted"));
            }
        }
        Ok(())
    }
}
