//! The queue: real `SQLite`, real worker, real processes where a process matters.

mod records;
mod store;
