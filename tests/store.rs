//! The store on both back ends: the same tests run on SQLite and on PostgreSQL.
//!
//! `TANDEM_TEST_POSTGRES` is the URL of a server on which databases may be created (`scripts/test` starts
//! one). Without it the PostgreSQL half is left out and says so; with `CI=true` or
//! `TANDEM_TEST_REQUIRE_POSTGRES` set that is a failure.

#![expect(clippy::unwrap_used, reason = "in a test a failure is a panic, also in what tests share")]

#[path = "store/backup.rs"]
mod backup;
#[path = "store/calls.rs"]
mod calls;
#[path = "store/journal.rs"]
mod journal;
#[path = "store/outages.rs"]
mod outages;
#[path = "store/resources.rs"]
mod resources;
#[path = "store/support.rs"]
mod support;
