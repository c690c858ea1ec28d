//! A store with millions of events, and how long its queries take.

mod generate;
mod measure;

pub use generate::fill;
pub use measure::measure;
