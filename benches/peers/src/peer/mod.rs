//! What users would pick today, each behind the traits of `rig::roles`.

pub mod array_queue;
pub mod channel;
#[cfg(feature = "iceoryx2")]
pub mod iceoryx2;
pub mod mutex;
pub mod os;
pub mod procspawn;
pub mod python;
pub mod rayon;
pub mod ringfire;
pub mod rtrb;
pub mod shaq;
pub mod words;
