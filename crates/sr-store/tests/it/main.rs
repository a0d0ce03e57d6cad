//! The contract of the stores, run on every back-end, and what SQLite and files add to it.

mod contract;
mod directory;
