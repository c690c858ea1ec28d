//! Real servers, faults and an oracle for Daybook's tests; never shipped.

pub mod arguments;
pub mod bigstore;
pub mod chaos;
pub mod fail_point;
pub mod fuzz;
pub mod http;
pub mod ledger;
pub mod load;
pub mod mongod;
pub mod oracle;
pub mod outage;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod sse;
pub mod whose;
pub mod world;

pub use world::World;
