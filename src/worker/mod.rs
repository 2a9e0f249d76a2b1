//! worker
pub mod mailbox;
pub mod published;
pub mod records;
