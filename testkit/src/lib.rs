//! Real servers, faults and an oracle for Daybook's tests; never shipped.

pub mod http;
pub mod mongod;
pub mod world;

pub use world::World;
