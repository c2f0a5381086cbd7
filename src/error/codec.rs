//! Why a value did not become bytes, or bytes no value.

use serde::de::{Expected, Unexpected};
use serde::{Deserialize, Serialize};

/// The value cannot be written as a message.
///
/// That a message is too large for where it should go is not among these: it depends on the place, and
/// whoever sends says so with both sizes.
///
/// # Examples
///
/// ```
/// use multiproc::EncodeError;
///
/// let error = EncodeError::TooDeep { limit: 256 };
/// assert_eq!(error.to_string(), "the value nests deeper than 256 levels");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A sequence or map does not know its length before it is walked (`#[serde(flatten)]` makes such maps).
    #[error("the value has a part that does not know its length")]
    UnknownLength,
    /// A field was left out for its value (`#[serde(skip_serializing_if)]`); a reader could not tell.
    #[error("field `{0}` was left out for its value, which a reader could not tell")]
    SkippedField(String),
    /// The value holds values that hold values, and so on, further than a reader may follow.
    #[error("the value nests deeper than {limit} levels")]
    TooDeep {
        /// Levels a message may have.
        limit: usize,
    },
    /// The value has more elements that take no bytes, like `()`, than a reader may believe in.
    #[error("the value has more than {limit} elements that take no bytes")]
    TooManyEmpty {
        /// Elements without bytes that a message may have.
        limit: usize,
    },
    /// Reading the value back would nest so deep that it could run out of stack, as writing it did
    /// nearly.
    #[error("the value nests so deep that less than {reserve} bytes of stack are left")]
    NoStack {
        /// Bytes of stack that are left untouched.
        reserve: usize,
    },
    /// The type's `Serialize` wrote more or fewer bytes than its `Deserialize` reads, or than it
    /// had written the time before, when room was made for them.
    #[error("the value was written as {written} bytes where {needed} are read")]
    WrongLength {
        /// Bytes that `Serialize` wrote.
        written: usize,
        /// Bytes that are read, or that there was room for.
        needed: usize,
    },
    /// The type's `Deserialize` wants to be told what comes next, which a message does not say: no receiver
    /// could read a value of it. So it is with `serde_json::Value`, `#[serde(untagged)]` and `#[serde(tag)]`.
    #[error(
        "no receiver could read a `{of}`: {} can only be read from a format that describes itself, which a \
         message does not (serde_json::Value and its like, #[serde(untagged)], #[serde(tag)]); \
         send an enum without these attributes, or JSON in a String",
        if part.is_empty() { "it" } else { part }
    )]
    Unreadable {
        /// The type of the message.
        of: String,
        /// What of it cannot be read, and where; empty if that is the type itself.
        part: String,
    },
    /// The type's own `Serialize` failed, for the reason given.
    #[error("the value could not be written: {0}")]
    Refused(String),
}

/// The bytes are not a message of the type asked for.
///
/// # Examples
///
/// ```
/// use multiproc::DecodeError;
///
/// let error = DecodeError::Truncated { needed: 8, left: 3 };
/// assert_eq!(error.to_string(), "the message has 3 bytes left where 8 are needed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message ends inside the value.
    #[error("the message has {left} bytes left where {needed} are needed")]
    Truncated {
        /// Bytes the next part of the value takes.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// The message goes on after the value.
    #[error("the message has {left} bytes after the value")]
    Trailing {
        /// Bytes after the value.
        left: usize,
    },
    /// A `bool`, a `char`, an `Option` or a [`Plain`](crate::Plain) value has bits it never has.
    #[error("the message has bits that are no value of the type")]
    InvalidBits,
    /// A text is not UTF-8.
    #[error("the message has a text that is not utf-8")]
    InvalidText,
    /// A number or a length is too large for its type.
    #[error("the message has a number too large for its type")]
    InvalidNumber,
    /// The type can only be read from a format that names its fields (`#[serde(untagged)]`, `#[serde(flatten)]`).
    #[error("the type can only be read from a format that describes itself")]
    NotSelfDescribing,
    /// The message holds values that hold values, and so on, further than is followed.
    #[error("the message nests deeper than {limit} levels")]
    TooDeep {
        /// Levels a message may have.
        limit: usize,
    },
    /// The message claims more elements that take no bytes, like `()`, than are believed.
    #[error("the message has more than {limit} elements that take no bytes")]
    TooManyEmpty {
        /// Elements without bytes that a message may have.
        limit: usize,
    },
    /// The message nests so deep that reading on could run out of stack.
    #[error("the message nests so deep that less than {reserve} bytes of stack are left")]
    NoStack {
        /// Bytes of stack that are left untouched.
        reserve: usize,
    },
    /// The type's own `Deserialize` failed, for the reason given.
    #[error("the message could not be read: {0}")]
    Refused(String),
}

impl serde::ser::Error for EncodeError {
    #[cold]
    fn custom<M: std::fmt::Display>(reason: M) -> Self {
        EncodeError::Refused(reason.to_string())
    }
}

impl serde::de::Error for DecodeError {
    #[cold]
    fn custom<M: std::fmt::Display>(reason: M) -> Self {
        DecodeError::Refused(reason.to_string())
    }

    /// Bytes that are no value are the bits of a [`Plain`](crate::Plain).
    #[cold]
    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match unexpected {
            Unexpected::Bytes(_) => DecodeError::InvalidBits,
            _ => Self::custom(format_args!(
                "invalid value: {unexpected}, expected {expected}"
            )),
        }
    }
}
