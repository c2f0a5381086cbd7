//! Errors of the operating system inside ours: when they are equal, and how they travel.

/// Errors are equal when all that they hold is; those of the system, when they are of one kind and number or text.
///
/// `std::io::Error` has no equality of its own, and what it shows for debugging is exactly this.
macro_rules! equal_by_debug {
    ($error:ty) => {
        impl PartialEq for $error {
            fn eq(&self, other: &Self) -> bool {
                std::mem::discriminant(self) == std::mem::discriminant(other)
                    && format!("{self:?}") == format!("{other:?}")
            }
        }

        impl Eq for $error {}
    };
}
pub(crate) use equal_by_debug;

/// How an error of the system travels: by number, or by text if it has none.
pub(crate) mod os {
    use std::io;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(error: &io::Error, to: S) -> Result<S::Ok, S::Error> {
        let said = match error.raw_os_error() {
            Some(number) => Ok(number),
            None => Err(error.to_string()),
        };
        said.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<io::Error, D::Error> {
        let said = Result::<i32, String>::deserialize(from)?;
        Ok(said.map_or_else(io::Error::other, io::Error::from_raw_os_error))
    }
}
