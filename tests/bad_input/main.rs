//! Bad input of every kind, each with the clear word that it must meet, and good input around it
//! that must not suffer. Bad configurations have a table of their own in `tests/bad_config`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod authentik;
mod ocis;
mod queries;
mod recorder;
mod webhook;

/// A table that shrinks unnoticed proves less and less.
#[test]
fn the_table_is_as_long_as_it_should_be() {
    let cases = authentik::CASES.len()
        + ocis::cases().len()
        + queries::QUERIES.len()
        + queries::PATHS.len()
        + recorder::CASES.len()
        + webhook::bodies().len()
        + webhook::EVENTS.len();
    assert!(cases >= 120, "{cases}");
}
