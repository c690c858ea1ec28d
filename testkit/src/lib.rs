//! Real servers, faults and an oracle for Daybook's tests; never shipped.

pub mod bigstore;
pub mod chaos;
pub mod http;
pub mod ledger;
pub mod load;
pub mod mongod;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod world;

pub use world::World;
